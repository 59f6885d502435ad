"""Ratios, bounds in both directions, and a control without which nothing is ok."""

from __future__ import annotations

import math

import pytest
from serve_world import figures

from appliance.bench.report import Report
from appliance.bench.serve.cases import CASES, CONTROL, DEFAULT, OURS, SLOWED, TUNED, choose
from appliance.bench.serve.rows import ROWS, Ratio, check_control, check_rows, check_tokens


def single(ours: float, tuned: float):
    return {
        ("streams-1", OURS): figures(decode_tokens_per_s=ours),
        ("streams-1", TUNED): figures(decode_tokens_per_s=tuned),
        ("streams-1", DEFAULT): figures(),
    }


def test_the_figure_is_the_median_of_the_ratios_of_each_round() -> None:
    # The machine got slower, for both: a ratio of medians would say something else than 1.
    rounds = [single(50, 50), single(30, 20), single(10, 20)]
    row = check_rows(rounds)[0]
    assert (row.value, row.low, row.high, row.n) == (1.0, 0.5, 1.5, 3)
    assert row.ok


def test_a_bound_from_below_is_broken_from_below() -> None:
    assert not check_rows([single(97, 100)])[0].ok
    assert check_rows([single(98, 100)])[0].ok


def test_a_bound_from_above_is_broken_from_above() -> None:
    rows = {
        row.name: row
        for row in check_rows(
            [
                {
                    ("long-prompt", OURS): figures(gap_p99_ms=26.0),
                    ("long-prompt", TUNED): figures(gap_p99_ms=100.0),
                    ("long-prompt", DEFAULT): figures(gap_p99_ms=100.0),
                }
            ]
        )
    }
    row = rows["4k prompt, p99 between tokens vs default"]
    assert (row.value, row.bound, row.ok) == (0.26, 0.25, False)


def test_memory_per_session_counts_what_more_sessions_add() -> None:
    measured = {}
    for case, ours, tuned in (("streams-1", 500, 100), ("streams-8", 500 + 77, 100 + 70)):
        measured[case, OURS] = figures(peak_bytes=ours)
        measured[case, TUNED] = figures(peak_bytes=tuned)
        measured[case, DEFAULT] = figures(peak_bytes=tuned)
    row = next(row for row in check_rows([measured]) if row.name.startswith("memory"))
    assert (row.value, row.ok) == (pytest.approx(1.1), True)


def test_a_ratio_to_nothing_keeps_no_bound() -> None:
    row = check_rows([single(97, 0), single(98, 100)])[0]
    assert math.isnan(row.value)
    assert not row.ok


def test_a_row_without_its_case_is_left_out() -> None:
    assert {row.name for row in check_rows([single(1, 1)])} == {
        "1 stream, decode tokens/s vs tuned",
        "1 stream, TTFT vs tuned",
    }


def control(slowed: float):
    return [
        {
            (CONTROL, SLOWED): figures(decode_tokens_per_s=slowed),
            (CONTROL, TUNED): figures(decode_tokens_per_s=100),
        }
    ]


def test_the_control_must_break_the_bound() -> None:
    assert check_control(control(60.0))[1]
    assert not check_control(control(99.0))[1]


def test_sides_that_did_different_work_are_found_out() -> None:
    rounds = [
        {
            ("chat", OURS): figures(tokens=100),
            ("chat", TUNED): figures(tokens=98),
            ("retrieval", OURS): figures(tokens=100),
            ("retrieval", TUNED): figures(tokens=50),
        }
    ]
    assert check_tokens(rounds, []).ok
    found = check_tokens(rounds, ["chat"])
    assert (found.value, found.ok) == (pytest.approx(2.0), False)


def test_a_ratio_in_the_common_form() -> None:
    ratio = Ratio("speed", 1.05, 1.0, "x", 5, at_least=True, low=0.9, high=1.2)
    assert Report((ratio,), "control", True).json()["checks"] == [
        {
            "name": "speed",
            "value": 1.05,
            "bound": 1.0,
            "unit": "x",
            "n": 5,
            "low": 0.9,
            "high": 1.2,
            "ok": True,
        }
    ]


def test_every_row_has_its_cases_and_sides() -> None:
    cases = {case.name: case for case in CASES}
    assert len(cases) == len(CASES)
    assert {name for row in ROWS for name in row.cases} | {CONTROL} == set(cases)
    everything = [{(case.name, side): figures() for case in CASES for side in case.sides}]
    everything[0]["streams-8", OURS] = everything[0]["streams-8", TUNED] = figures(peak_bytes=2000)
    assert len(check_rows(everything)) == len(ROWS)


def test_the_control_is_always_measured() -> None:
    assert [case.name for case in choose(["chat"], full=False)] == ["chat", CONTROL]
    assert CONTROL in [case.name for case in choose([], full=False)]
    assert len(choose([], full=True)) == len(CASES)

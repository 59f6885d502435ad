"""Figures against events whose times were set by hand."""

from __future__ import annotations

import math

import pytest
from serve_world import answer

from appliance.bench.serve.memory import parse_peak
from appliance.bench.serve.metrics import Window, gaps_ms, quantile, summarise
from appliance.core.errors import HostError


def test_the_figures_of_two_answers() -> None:
    first = answer(1.0, 1.1, 1.3, sent_at=0.5)
    second = answer(2.0, 2.4, sent_at=1.0, tokens=5)
    figures = summarise([first, second], waited=[first, second], window=None, peak_bytes=7)
    assert figures.tokens_per_s == pytest.approx(8 / (2.4 - 0.5))
    assert figures.decode_tokens_per_s == pytest.approx((2 / 0.3 + 4 / 0.4) / 2)
    assert figures.ttft_ms == pytest.approx((500 + 1000) / 2)
    assert figures.gap_p50_ms == pytest.approx(200)
    assert figures.gap_p99_ms == pytest.approx(200 + 0.98 * 200)
    assert (figures.peak_bytes, figures.prompt_tokens, figures.tokens, figures.answers) == (7, 20, 8, 2)


def test_only_those_who_wait_count_for_the_first_token() -> None:
    early, late = answer(1.0, 2.0), answer(9.0, 10.0)
    figures = summarise([early, late], waited=[late], window=None, peak_bytes=0)
    assert figures.ttft_ms == pytest.approx(9000)
    assert figures.answers == 2


def test_a_window_keeps_the_gaps_that_touch_it() -> None:
    one = answer(0.0, 1.0, 3.0, 4.0, 8.0, 9.0)
    assert gaps_ms(one, Window(3.5, 5.0)) == [1000.0, 4000.0]
    assert gaps_ms(one, Window(4.0, 4.5)) == [4000.0]
    assert gaps_ms(one, Window(20.0, 21.0)) == []


def test_a_gap_that_spans_the_whole_window_counts() -> None:
    assert gaps_ms(answer(0.0, 10.0), Window(4.0, 5.0)) == [10_000.0]


def test_what_was_not_measured_is_not_a_number() -> None:
    whole = answer(2.0, tokens=9)
    figures = summarise([whole], waited=[whole], window=None, peak_bytes=0)
    assert figures.tokens_per_s == pytest.approx(4.5)
    assert math.isnan(figures.decode_tokens_per_s)
    assert math.isnan(figures.gap_p99_ms)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.99, 3.97)])
def test_quantiles_are_interpolated(share: float, value: float) -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(value)


def test_peak_memory_is_read_in_bytes() -> None:
    assert parse_peak("Name:\tx\nVmPeak:\t    9 kB\nVmHWM:\t   12 kB\nVmRSS:\t    3 kB\n") == 12 * 1024


def test_a_process_that_has_ended_has_no_memory() -> None:
    with pytest.raises(HostError, match="gone"):
        parse_peak("Name:\tx\nState:\tZ (zombie)\n")

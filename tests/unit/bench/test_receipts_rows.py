"""What is judged of a run, and how it is shown."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from appliance.bench.receipts.admission import Grown
from appliance.bench.receipts.control_process import Proofs, Took
from appliance.bench.receipts.receipts import FULL, USUAL, Measured, Options
from appliance.bench.receipts.render import render_json, render_plots
from appliance.bench.receipts.rows import Signing, check_admission, check_control, check_signing
from appliance.bench.report import Report
from appliance.cli import bench
from appliance.core.errors import UsageError

SIGNING = Signing(
    sessions_per_s={1: [300.0], 32: [2500.0, 2100.0, 1000.0]},
    alone_per_s=[600.0, 600.0, 600.0],
    grouped_per_s=[8400.0, 8400.0, 8400.0],
    record_bytes=800,
    cpu_us=[400.0],
    early=0,
    early_control=100,
    asked=50,
)
PROOFS = Proofs(
    size=12_000,
    rows=12_000,
    proven=400,
    verified=200,
    proof_bytes=4200,
    witness_bytes=3271,
    prove_ms=1.0,
    verify_ms=0.5,
    receipt_bytes=1600.0,
    leaf_bytes=34.0,
    peak_bytes=90 * 2**20,
    refused_other=True,
    refused_changed=True,
)


def grown(leaves: int, wall_s: float) -> Grown:
    return Grown(leaves, (Took(wall_s, wall_s / 2, 1e-4),) * 3, 2000, PROOFS)


def test_medians_are_judged_and_a_session_is_two_records() -> None:
    checks = {check.name: check for check in check_signing(SIGNING)}
    most = checks["receipts signed and fsynced, 32 sessions"]
    assert (most.value, most.ok) == (2100.0, True)
    assert checks["records of 1 session, to bare fsync of each"].value == 1.0
    assert checks["records of 32 sessions, to bare fsync of 32"].value == 0.5


@pytest.mark.parametrize(("last_s", "ok"), [(1.4, True), (1.6, False)])
def test_a_leaf_of_a_large_log_may_cost_half_as_much_again(last_s: float, ok: bool) -> None:
    *_, ratio = check_admission([grown(10_000, 1.0), grown(1_000_000, 1.1), grown(10_000_000, last_s)])
    assert (ratio.value, ratio.ok) == (last_s, ok)


def test_processor_time_is_told_beside_what_verification_alone_takes() -> None:
    checks = {check.name: check.value for check in check_admission([grown(10_000, 1.0)])}
    assert checks["processor time for each, at 10,000"] == pytest.approx(250)
    assert checks["the same, to a bare Ed25519 verification, at 10,000"] == pytest.approx(2.5)


def test_too_slow_too_large_and_too_early_are_out() -> None:
    slow = list(check_admission([replace(grown(10_000, 1.01), proofs=replace(PROOFS, proof_bytes=5001))]))
    assert [check.name.split(",")[0] for check in slow if not check.ok] == [
        "receipts admitted and logged",
        "largest proof",
    ]
    early = list(check_signing(replace(SIGNING, early=1)))
    assert [check.name for check in early if not check.ok] == ["replies before the disk had what they answer"]


def test_the_control_needs_every_part_of_it() -> None:
    one = grown(10_000, 1.0)
    assert check_control(SIGNING, [one])[1]
    assert not check_control(replace(SIGNING, early_control=0), [one])[1]
    for part in ("refused_other", "refused_changed"):
        assert not check_control(SIGNING, [one, replace(one, proofs=replace(PROOFS, **{part: False}))])[1]


def test_without_cachestat_nothing_is_said_of_the_disk() -> None:
    unknown = replace(SIGNING, early=None, early_control=None)
    assert not [check for check in check_signing(unknown) if "disk had" in check.name]
    name, ok = check_control(unknown, [grown(10_000, 1.0)])
    assert ok
    assert "fsync" not in name


def test_json_is_the_common_form_and_plots_have_a_mark_for_each_size() -> None:
    sizes = [grown(10_000, 0.8), grown(1_000_000, 0.9)]
    report = Report((*check_signing(SIGNING), *check_admission(sizes)), *check_control(SIGNING, sizes))
    shown = json.loads(json.dumps(render_json(Measured(report, SIGNING, sizes))))
    assert (shown["ok"], shown["control"]["ok"], len(shown["sizes"])) == (True, True, 2)
    plots = render_plots(sizes)
    assert len(plots) == 4
    for plot in plots.values():
        assert len(list(ET.fromstring(plot).iter("{http://www.w3.org/2000/svg}circle"))) == 2


@pytest.mark.parametrize("leaves", [(), (0,), (10_001,), (10_000, -500), (10**9,)])
def test_sizes_that_make_no_sense_are_refused(leaves: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        Options(leaves)


def test_ten_million_are_measured_only_when_asked_for() -> None:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    assert parser.parse_args(["receipts"]).leaves is None
    assert parser.parse_args(["receipts", "--leaves", "500,1000"]).leaves == (500, 1000)
    assert 10_000_000 not in USUAL
    assert 10_000_000 in FULL

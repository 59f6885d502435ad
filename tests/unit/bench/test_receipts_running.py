"""The bench on a real notary and a real control, small."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.bench.receipts.admission import measure_admission
from appliance.bench.receipts.receipts import Options, measure_receipts
from appliance.bench.receipts.sessions import load_notary, running_notary, written_bytes
from appliance.core.errors import HostError


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def test_every_session_that_is_counted_left_its_records(scratch: Path) -> None:
    with running_notary(scratch) as notary:
        before = written_bytes(notary)
        load = load_notary(notary, 3, 0.2)
        assert load.per_s > 0
        assert load.cpu_us > 0
        assert written_bytes(notary) - before > 2 * 300 * load.per_s * 0.2


def test_a_notary_that_does_not_start_says_why(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.bench.serve.process._START_S", 0.5)
    with pytest.raises(HostError) as refused, running_notary(scratch, ("sh", "-c", "echo no; exit 1")):
        pass
    assert "no" in (refused.value.hint or "")


def test_a_small_run_measures_everything_and_leaves_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    options = Options(
        (500, 1000), signing_rounds=1, signing_s=0.1, at_once=(1, 4), asked=5, rounds=2, round_receipts=1000
    )
    told: list[str] = []
    measured = measure_receipts(options, told.append)
    assert measured.report.control_ok, measured.report.lines()
    assert [(one.leaves, one.proofs.size, one.admitted) for one in measured.grown] == [
        (500, 2500, 2000),
        (1000, 3000, 2000),
    ]
    late = {check.name: check for check in measured.report.checks}.get(
        "replies before the disk had what they answer"
    )
    assert late is None or late.ok
    assert "making a log of 1,000 leaves" in told
    assert list(scratch.iterdir()) == []


def test_a_control_that_fails_says_why_and_leaves_nothing(scratch: Path) -> None:
    with pytest.raises(HostError) as refused:
        measure_admission(
            scratch, [500], 2, 10, lambda _: None
        )  # too few for a second checkpoint within a minute
    assert "10 were stored and 0 logged" in (refused.value.hint or "")
    assert list(scratch.iterdir()) == []

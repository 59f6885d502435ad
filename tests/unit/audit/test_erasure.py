"""`appliance audit erasure`: passes on the cell that we ship, and fails one that only says that it erases."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from appliance.audit import erasure
from appliance.audit.erasure import WAYS, audit_erasure
from appliance.bench.report import Report
from appliance.core.errors import HostError
from appliance.lab.synthetic_model import synthetic_manifest, write_model
from appliance.models import PinnedModel

pytestmark = [pytest.mark.engine, pytest.mark.skipif(os.geteuid() != 0, reason="reads memory of processes")]
LEAKY = (sys.executable, str(Path(__file__).with_name("leaky_cell.py")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PinnedModel:
    weights = tmp_path_factory.mktemp("model") / "synthetic.gguf"
    write_model(weights)
    return PinnedModel(synthetic_manifest(weights), weights)


def failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.ok}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_session_is_left_however_it_ends(model: PinnedModel, way: str) -> None:
    report = audit_erasure(model, lambda _: None, ways=[way])
    assert report.control_ok
    assert failed(report) == set()


def test_a_cell_that_erases_nothing_fails(model: PinnedModel) -> None:
    report = audit_erasure(model, lambda _: None, ways=["deleted"], cell=LEAKY)
    assert report.control_ok
    assert {
        f"deleted: {kind} left in the living cell" for kind in ("KV rows", "logits", "token arrays")
    } <= failed(report)


def test_who_may_not_look_is_told_so(model: PinnedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="root"):
        audit_erasure(model, lambda _: None)


def test_a_search_that_finds_nothing_anywhere_is_no_proof(
    model: PinnedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "_processes_with", lambda _canary: 0)
    assert not audit_erasure(model, lambda _: None, ways=[]).control_ok

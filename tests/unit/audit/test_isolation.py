"""The audit of isolation finds nothing in the engine, and finds what is made to leak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from appliance.audit import isolation
from appliance.audit.isolation import World, audit_isolation, draw_schedule
from appliance.lab.synthetic_model import synthetic_manifest, write_model
from appliance.models import PinnedModel

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PinnedModel:
    weights = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(weights)
    return PinnedModel(synthetic_manifest(weights), weights)


def test_no_word_of_a_neighbour_changes_a_bit(model: PinnedModel) -> None:
    report = audit_isolation(model, 6, lambda *_: None)
    value = report.json()
    assert report.ok, value
    changed, by_shape = value["checks"]
    assert changed["value"] == 0
    assert int(changed["unit"].split()[1]) > 50  # rows
    assert 0 < by_shape["value"] < 0.1


def test_a_build_that_leaks_fails(model: PinnedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(World):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **{**options, "leak": True})  # type: ignore[arg-type]

    monkeypatch.setattr(isolation, "World", Leaky)
    report = audit_isolation(model, 4, lambda *_: None)
    assert report.control_ok
    assert not report.ok


def test_schedules_have_everything_in_them() -> None:
    events = [event for seed in range(50) for event in draw_schedule(Random(seed))]
    assert {event.what for event in events} == {"ask", "follow", "cancel", "close", "guest"}
    assert sum(event.what == "guest" for event in events) == 150


def test_the_command_prints_the_report_as_its_last_line() -> None:
    command = [sys.executable, "-m", "appliance", "audit", "isolation", "--schedules", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path("/"))
    value = json.loads(done.stdout.strip().splitlines()[-1])
    assert value["ok"]
    assert done.returncode == 0

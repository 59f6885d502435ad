"""The doctor tells what is from what is not, says what to do, and its exit code follows."""

from __future__ import annotations

import argparse
import json

import pytest

from appliance.cli import doctor
from appliance.doctor import confinement
from appliance.doctor.finding import Finding, Status
from inference.confinement import landlock

GOOD = Finding("good", 3, 2, Status.OK, "why")
ODD = Finding("odd", "x", "y", Status.WARN, "why odd", "mend it")
BAD = Finding("bad one", 1, 2, Status.FAIL, "why bad", "mend that", "GiB")


def test_the_table_is_aligned_and_explains_only_what_is_not_ok() -> None:
    assert doctor.render_table([GOOD, ODD, BAD], coloured=False).splitlines() == [
        "ok    good     3",
        "warn  odd      x",
        "               why odd",
        "               do: mend it",
        "fail  bad one  1 GiB",
        "               why bad",
        "               do: mend that",
        "",
        "this host cannot serve yet: 1 ok, 1 warn, 1 fail",
    ]


def test_a_warning_serves_and_a_failure_does_not() -> None:
    assert doctor.render_json([GOOD, ODD], control=True)["ok"] is True
    assert doctor.render_json([GOOD, BAD], control=True)["ok"] is False
    assert doctor.render_json([GOOD], control=False)["ok"] is False


def test_this_host_is_looked_at_and_the_last_line_is_the_common_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = doctor.run(argparse.Namespace(json=True))
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(printed) == {"ok", "checks", "control"}
    assert printed["control"]["ok"] is True
    assert code == (0 if printed["ok"] else 1)
    assert all(set(check) == {"name", "value", "bound", "unit", "n", "ok"} for check in printed["checks"])
    values = {check["name"]: check["value"] for check in printed["checks"]}
    assert values["landlock ABI"] == landlock.observe_abi()


def test_swap_fails_and_says_swapoff(monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.doctor import machine

    monkeypatch.setattr(machine, "_read", lambda _path: "Filename Type\n/dev/sda2 partition\n")
    finding = machine._swap()
    assert finding.status is Status.FAIL
    assert finding.hint.startswith("swapoff -a")


def test_every_finding_that_is_not_ok_has_a_hint() -> None:
    assert all(finding.hint for finding in doctor.observe() if finding.status is not Status.OK)


@pytest.mark.skipif(landlock.observe_abi() < 2, reason="the kernel has no Landlock ABI 2")
def test_the_rehearsal_confines_a_process_and_a_module_that_does_not_is_noticed() -> None:
    assert confinement.rehearse().startswith("confined ")
    assert confinement.rehearse("inference.confinement.properties") == ""

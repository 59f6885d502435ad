"""The lab leaves nothing behind, whatever happened to it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from appliance.core.errors import UsageError
from appliance.lab import lab as labs
from appliance.lab.machine import Machine
from appliance.lab.provision import wait_until
from appliance.lab.topology import NODE

pytestmark = pytest.mark.lab


def traces(folder):
    """Everything of a machine that could be left on the host."""
    loops = subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    with open("/proc/mounts") as file:
        mounts = file.read()
    return [text for text in (loops, mounts) if str(folder) in text] + [
        text for text in (links,) if "p-node-a" in text
    ]


def test_a_machine_that_ended_leaves_no_process_mount_or_loop_device(tmp_path):
    machine = Machine.boot(NODE, tmp_path / "node")
    try:
        machine.service("sleeper", "sleep", "1000")
        machine.write("/var/lib/left", "something")
        wait_until(lambda: len(machine.processes()) >= 2, "the sleeper", machine)
        inside = os.readlink(f"/proc/{machine.pid}/ns/pid")
    finally:
        machine.end()
    assert not machine.alive
    left = [p for p in os.listdir("/proc") if p.isdigit() and _namespace(p) == inside]
    assert left == []
    assert traces(tmp_path) == []


def _namespace(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def test_processes_of_inner_namespaces_count_as_the_machines(tmp_path):
    machine = Machine.boot(NODE, tmp_path / "node")
    try:
        machine.service("inner", "unshare", "--pid", "--fork", "--kill-child", "sleep", "1000")
        wait_until(lambda: len(machine.processes()) >= 3, "the inner sleeper", machine)
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in machine.processes()}
        assert "sleep" in names
    finally:
        machine.end()


def test_a_command_that_entered_a_machine_ends_with_it_even_if_it_was_stopped(tmp_path):
    machine = Machine.boot(NODE, tmp_path / "node")
    try:
        machine.service("sleeper", "sleep", "1000")
        wait_until(lambda: len(machine.processes()) >= 2, "the sleeper", machine)
        machine.run("pkill", "-STOP", "-x", "sleep")
    finally:
        machine.end()
    assert traces(tmp_path) == []


def test_what_a_machine_writes_stays_on_its_own_disk(tmp_path):
    machine = Machine.boot(NODE, tmp_path / "node")
    try:
        machine.write("/etc/only-here", "content")
        assert not os.path.exists("/etc/only-here")
    finally:
        machine.end()


def test_a_lab_of_the_same_name_is_not_started_twice(lab):
    with pytest.raises(UsageError):
        labs.up(lab.name, lambda _what: None)


def test_a_crashed_lab_can_be_brought_down(tmp_path, monkeypatch):
    monkeypatch.setattr(labs, "BASE", tmp_path)
    machine = Machine.boot(NODE, tmp_path / "crashed" / "node-a")
    labs._write(labs.Lab("crashed", {"node-a": machine}, ""))
    os.kill(machine.pid, signal.SIGKILL)
    assert labs.down("crashed")
    assert not (tmp_path / "crashed").exists()
    assert not labs.down("crashed")

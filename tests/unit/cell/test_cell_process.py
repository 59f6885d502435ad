"""The cell as a process: its exit codes, its silence, and what it does with the socket that it inherited."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running_cell import RunningCell, StartCell, ask
from test_cell_sessions import code, open_session, until_text

from appliance.core.bundle import Limits

CHAT = "/v1/chat/completions"
PROGRAM = Path(__file__).parent / "confined_cell.py"


@contextmanager
def process(cell: RunningCell, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program with the cell's listener and its end of the notary's connection, as a launcher does."""
    descriptors = (cell.listener.fileno(), cell.notary.near.fileno())
    argv = [sys.executable, str(PROGRAM), *arguments]
    running = subprocess.Popen(
        argv, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=5)


def arguments(cell: RunningCell) -> tuple[str, str, str]:
    return str(cell.policy_file.parent), str(cell.listener.fileno()), str(cell.notary.near.fileno())


def test_sigterm_drains_the_process_and_the_next_one_takes_the_same_socket(start_cell: StartCell) -> None:
    cell = start_cell(started=False)
    with process(cell, *arguments(cell)) as running, cell.client() as client:
        open_session(client)
        with client.stream("POST", CHAT, json=ask(stream=True)) as response:
            until_text(response)
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        said, complained = running.communicate(timeout=5)
        assert running.returncode == 0
        assert time.monotonic() - started < 3
        assert (said, complained) == (b"", b"")
    assert "drained" in cell.notary.ends()
    waiting = socket.socket(socket.AF_UNIX)
    with waiting:
        waiting.connect(str(cell.path))  # the launcher still listens
    assert cell.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_the_process_exits_with_zero_when_it_is_idle(start_cell: StartCell) -> None:
    cell = start_cell(started=False, limits=Limits(cell_idle_s=0, answer_tokens=64))
    with process(cell, *arguments(cell)) as running, cell.client() as client:
        assert client.post(CHAT, json=ask()).status_code == 200
        assert running.wait(3) == 0
    assert cell.notary.ends() == ["one_shot"]


def test_the_process_says_in_its_exit_code_that_the_notary_is_gone(start_cell: StartCell) -> None:
    cell = start_cell(started=False)
    with process(cell, *arguments(cell)) as running:
        with cell.client() as client:
            assert client.get("/v1/models").status_code == 200
        cell.notary.hang_up()
        assert running.wait(3) == 15


def test_without_a_seat_everyone_gets_a_503_and_the_socket_stays(start_cell: StartCell) -> None:
    cell = start_cell(started=False)
    with process(cell, str(cell.listener.fileno())) as running:
        for _ in range(3):
            with cell.client() as client:
                refused = client.post(CHAT, json=ask())
            assert (refused.status_code, code(refused)) == (503, "no_seat")
            assert refused.headers["retry-after"].isdigit()
        assert running.wait(3) == 75
    assert cell.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs procfs")
def test_a_serving_cell_has_no_file_open_for_writing(start_cell: StartCell) -> None:
    cell = start_cell(started=False)
    with process(cell, *arguments(cell)) as running, cell.client() as client:
        assert client.post(CHAT, json=ask()).status_code == 200
        folder = Path(f"/proc/{running.pid}/fd")
        opened = {os.readlink(entry) for entry in folder.iterdir()}
    files = {name for name in opened if name.startswith("/") and name != "/dev/null"}
    assert files == set()

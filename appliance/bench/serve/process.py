"""Processes under measurement: started, waited for, ended whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from appliance.bench.serve.client import BenchPeerError, Endpoint, exchange
from appliance.core.errors import HostError

_START_S: Final = 120.0
_STOP_S: Final = 10.0


@contextlib.contextmanager
def process(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a process, whatever it prints appended to `log`; yield its id, and end it afterwards."""
    with log.open("ab") as output:
        started: subprocess.Popen[Any] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    try:
        yield started.pid
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


async def await_ready(endpoint: Endpoint, path: str, pid: int, log: Path) -> None:
    """Wait until a server answers a path with a success.

    Raises:
        HostError: If it ends or takes too long; the hint holds the end of what it printed.
    """
    deadline = time.monotonic() + _START_S
    while True:
        try:
            await exchange(endpoint, "GET", path)
        except (OSError, BenchPeerError):
            if time.monotonic() > deadline or not is_alive(pid):
                raise _not_started(log) from None
            await asyncio.sleep(0.02)
        else:
            return


def await_path(path: Path, log: Path) -> None:
    """Wait until a process has made a socket.

    Raises:
        HostError: If it takes too long; the hint holds the end of what it printed.
    """
    deadline = time.monotonic() + _START_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise _not_started(log)
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _not_started(log: Path) -> HostError:
    said = log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""
    return HostError("a server under measurement does not start", hint=said or "it printed nothing")

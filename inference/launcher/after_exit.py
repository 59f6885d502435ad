"""The command that replaces NGINX's workers after a cell has ended: coalesced, and never later than 30 s."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress

INTERVAL_S = 5.0  # between two starts
TIMEOUT_S = 20.0  # with the interval less than the 30 s that are promised


class AfterExit:
    """Runs one command whenever a cell has ended, at most every `INTERVAL_S`."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command` is an argument list; empty: nothing is ever run."""
        self._command = list(command)
        self._loop = asyncio.get_running_loop()
        self._last_s = -INTERVAL_S
        self._due: asyncio.TimerHandle | None = None
        self._running: subprocess.Popen[bytes] | None = None
        self._again = False

    def request(self) -> None:
        """Have the command run soon. A run that began before this call does not count."""
        if not self._command or self._due is not None:
            return
        if self._running is not None:
            self._again = True
            return
        wait_s = max(0.0, self._last_s + INTERVAL_S - self._loop.time())
        self._due = self._loop.call_later(wait_s, self._run)

    def _run(self) -> None:
        self._due = None
        self._last_s = self._loop.time()
        try:
            self._running = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            self.request()  # the program may be there later; NGINX's freed memory must not wait for a person
            return
        pidfd = os.pidfd_open(self._running.pid)
        timer = self._loop.call_later(TIMEOUT_S, self._running.kill)
        self._loop.add_reader(pidfd, self._ended, pidfd, timer)

    def _ended(self, pidfd: int, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if self._running is not None:
            failed = self._running.wait() != 0
            self._running = None
            if self._again or failed:
                self._again = False
                self.request()

    def close(self) -> None:
        """Stop; a run that is due is not waited for."""
        self._command = []
        if self._due is not None:
            self._due.cancel()
        if self._running is not None:
            with suppress(ProcessLookupError):
                self._running.kill()
            self._running.wait()

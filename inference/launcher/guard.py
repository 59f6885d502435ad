"""The guard of one client: holds its listening socket, starts its cell at the first connection, sees it end.

The guard never accepts: the connection that woke it stays in the queue, and the cell takes it. A cell that fails is
started again at the next connection after a pause that doubles up to `LONGEST_PAUSE_S`; meanwhile connections stay
queued and nothing is answered, so a client is slowed down by a failing host but never cut off for good.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from inference.confinement.properties import EXIT_NO_SEAT, MEANINGS, Property
from inference.launcher.spawn import Order, Started, end, start

BACKLOG = 128
KILL_AFTER_S = 15.0  # a cell that drains takes 13 s at most
SHORTEST_PAUSE_S = 0.2  # also after a cell that ended well at once: at most five starts a second
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0  # a cell that lived so long did not fail at its start


def listen(path: Path, group: int | None) -> socket.socket:
    """Listen on a client's http.sock.

    Args:
        path: Replaced if it is there.
        group: Group of NGINX, which may connect; None where everything runs as one user.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


class Guard:
    """One client's guard.

    Attributes:
        order: What to start.
        pid: The running cell, None if there is none.
        gone: Set when the guard is closed and its cell has ended.
    """

    def __init__(self, order: Order, path: Path, on_exit: Callable[[], None]) -> None:
        """Begin to listen; `on_exit` is called whenever a cell has ended."""
        self.order = order
        self.pid: int | None = None
        self.gone = asyncio.Event()
        self._path = path
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._running = False
        self._failures = 0
        self._started_at = 0.0
        self._cell: int | None = None  # pidfd
        self._kill: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._wait_for_connection()

    def _wait_for_connection(self) -> None:
        self._pause = None
        self._loop.add_reader(self.order.listener, self._start)

    def _start(self) -> None:
        self._loop.remove_reader(self.order.listener)
        self._started_at = self._loop.time()
        try:
            started = start(self.order)
        except OSError:
            self._rest(self._pause_after_failure())
            return
        self._running = True
        child = os.pidfd_open(started.child)
        self.pid = started.cell or None
        with suppress(ProcessLookupError):
            self._cell = os.pidfd_open(started.cell) if started.cell else None
        os.set_blocking(started.report, False)
        self._loop.add_reader(child, self._ended, child, started)

    def _ended(self, child: int, started: Started) -> None:
        self._loop.remove_reader(child)
        code = os.waitstatus_to_exitcode(os.waitpid(started.child, 0)[1])
        self._tell(_verdict(started.report))
        for descriptor in (child, self._cell):
            if descriptor is not None:
                os.close(descriptor)
        self._cell = self.pid = None
        self._running = False
        if self._kill is not None:
            self._kill.cancel()
            self._kill = None
        self._on_exit()
        self._rest(self._pause_after(code))

    def _tell(self, verdict: str) -> None:
        """Say why a cell refused, in closed words; it says so once for each start."""
        word, _, name = verdict.partition(" ")
        if word == "refused" and name in set(Property):
            meaning, hint = MEANINGS[Property(name)]
            print(f"cell refused: {name}: {meaning}; {hint}", file=sys.stderr, flush=True)

    def _pause_after(self, code: int) -> float:
        lived_s = self._loop.time() - self._started_at
        if code in (0, EXIT_NO_SEAT) or lived_s >= SETTLED_S:
            self._failures = 0
            return 0.0 if lived_s >= 1.0 else SHORTEST_PAUSE_S
        return self._pause_after_failure()

    def _pause_after_failure(self) -> float:
        self._failures += 1
        return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10)))

    def _rest(self, pause_s: float) -> None:
        if self._closing:
            self.gone.set()
        else:
            self._pause = self._loop.call_later(pause_s, self._wait_for_connection)

    def end(self) -> None:
        """End the cell if one runs: SIGTERM, and SIGKILL after `KILL_AFTER_S`."""
        if self._cell is not None and self._kill is None:
            end(self._cell, signal.SIGTERM)
            self._kill = self._loop.call_later(KILL_AFTER_S, end, self._cell, signal.SIGKILL)

    def close(self) -> None:
        """Stop listening and end the cell; `gone` tells when that is done."""
        self._closing = True
        self._loop.remove_reader(self.order.listener)
        if self._pause is not None:
            self._pause.cancel()
        self.order.listener.close()
        self._path.unlink(missing_ok=True)
        if not self._running:
            self.gone.set()
        self.end()


def _verdict(report: int) -> str:
    """Read what the stub reported, nothing if it did not get that far."""
    with os.fdopen(report, "rb") as reader:
        return (reader.read(256) or b"").decode("ascii", "replace").strip()

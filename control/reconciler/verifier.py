"""A second process that verifies receipts while this one stores them: Ed25519 holds the interpreter's lock, and half of an admission is that."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from appliance.core.receipt import CertifiedKeys
from control.audit.arrivals import Arrival, Damaged, look_at_all

_lock = threading.Lock()
_process: _Process | None = None


class _Process:
    """The process. It ends with this one, however this one ends: then its end of the pipe is the last one."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs,), name="verifier", daemon=True).start()
        theirs.close()
        self._ready = False
        self._lock = threading.Lock()

    def look_at_all(
        self, texts: Sequence[Any], node: str, keys: CertifiedKeys
    ) -> list[Arrival | Damaged] | None:
        """As `arrivals.look_at_all`; None while the process starts or is busy for another node. Raises EOFError or OSError once it is gone."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            self._ready = self._ready or (self._pipe.poll() and self._pipe.recv() is None)
            if not self._ready:
                return None
            self._pipe.send((texts, node, keys))
            return list(self._pipe.recv())
        finally:
            self._lock.release()


def look_aside(texts: Sequence[Any], node: str, keys: CertifiedKeys) -> list[Arrival | Damaged]:
    """As `arrivals.look_at_all`, in the second process once that is there. The first call starts it, and it stays."""
    global _process  # noqa: PLW0603 - one for this process, whatever node it is for
    with _lock:
        process = _process = _process or _Process()
    try:
        seen = process.look_at_all(texts, node, keys)
    except (EOFError, OSError):  # somebody ended it; the next call starts another
        seen = None
        with _lock:
            _process = None if _process is process else _process
    return look_at_all(texts, node, keys) if seen is None else seen


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the other one decides
    pipe.send(None)
    while True:
        try:
            texts, node, keys = pipe.recv()
        except EOFError:
            return
        pipe.send(look_at_all(texts, node, keys))

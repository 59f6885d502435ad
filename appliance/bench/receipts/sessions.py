"""Sessions at a real notary: opened and closed through its socket as cells do it, one after the other on each connection."""

from __future__ import annotations

import contextlib
import hashlib
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from appliance.bench.receipts.disk import unsynced_pages
from appliance.bench.serve.memory import cpu_s
from appliance.bench.serve.process import await_path, process
from appliance.core.errors import HostError
from appliance.core.node import NodePaths
from appliance.core.receipt import Confinement, Draft, End, Erase, Opening, RuntimeFacts

CLIENTS: Final = 8
_PATIENCE_S: Final = 10.0
_GRANTED: Final = b'{"id":1,"ok":true,'
_OPENING: Final = Opening(
    session="5" * 32,
    models=("6" * 64,),
    runtime=RuntimeFacts(appliance="0.1.0", llama_cpp="7" * 64, generation=3),
    confinement=Confinement(
        landlock_abi=7, seccomp=True, network="namespace", core_dumps=False, dumpable=False, swap=False
    ),
).model_dump(mode="json")
_DRAFT: Final = Draft(
    end=End.ONE_SHOT,
    requests=1,
    prompt_tokens=1200,
    completion_tokens=340,
    retrieved_chunks=0,
    corpora=(),
    erase=Erase(bytes=25_165_824, verified=True),
).model_dump(mode="json")

NOTARY: Final = (sys.executable, "-m", "appliance", "notary")
"""The command that runs a notary."""
FORGETFUL: Final = (
    sys.executable,
    "-c",
    "import os, sys; os.fsync = os.fdatasync = lambda _: None; from appliance.cli import main; sys.exit(main(sys.argv[1:]))",
    "notary",
)
"""The same with an fsync that does nothing: the control."""


@dataclass(frozen=True)
class Notary:
    """A notary that runs.

    Attributes:
        folder: What it writes.
        sockets: One for each client.
        pid: Its process.
    """

    folder: Path
    sockets: tuple[Path, ...]
    pid: int


@contextlib.contextmanager
def running_notary(scratch: Path, command: Sequence[str] = NOTARY) -> Iterator[Notary]:
    """Start a notary with its state in a folder, and end it afterwards.

    Args:
        scratch: Of a short path, since a Unix socket's is at most 107 bytes (unix(7)).
        command: That runs it.

    Raises:
        HostError: If it does not start.
    """
    from inference.notary.roster import Client, Roster, write_roster

    paths = NodePaths(scratch)
    paths.notary.mkdir(parents=True)
    names = [f"bench-{number}" for number in range(CLIENTS)]
    clients = [Client(name=name, pseudonym=hashlib.sha256(name.encode()).hexdigest()) for name in names]
    write_roster(paths.notary / "clients.json", Roster(clients=tuple(clients)))
    log = scratch / "log"
    with process([*command, "--root", str(scratch), "--node", "bench"], log) as pid:
        await_path(paths.notary_control, log)
        yield Notary(paths.notary, tuple(paths.notary_clients / name / "notary.sock" for name in names), pid)


class _Cell:
    """One connection: a session at a time."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_PATIENCE_S)
        self.socket.connect(str(path))
        self._reply = bytearray()
        self._is_open = False

    def open(self) -> None:
        self._send("open", opening=_OPENING)
        self._is_open = True

    def close(self, opened: bytes) -> None:
        self._send("close", receipt=json.loads(opened)["result"]["receipt"], draft=_DRAFT)
        self._is_open = False

    def receive(self) -> bytes | None:
        """Take what has come; return a whole reply.

        Raises:
            HostError: If the notary refuses or goes.
        """
        data = self.socket.recv(2**16)
        self._reply += data
        if data and not data.endswith(b"\n"):
            return None
        reply = bytes(self._reply)
        self._reply.clear()
        if not reply.startswith(_GRANTED):
            raise HostError(
                "the notary under measurement refuses", hint=reply[:200].decode("utf-8", "replace")
            )
        return reply

    def turn(self) -> bool:
        """Answer what has come; return whether a session ended."""
        reply = self.receive()
        if reply is None:
            return False
        if self._is_open:
            self.close(reply)
            return False
        return True

    def ask(self, send: Callable[[], None]) -> bytes:
        """Send a request and return its reply."""
        send()
        while (reply := self.receive()) is None:
            pass
        return reply

    def _send(self, op: str, **fields: Any) -> None:
        self.socket.sendall(json.dumps({"id": 1, "op": op, **fields}).encode() + b"\n")


@dataclass(frozen=True)
class Load:
    """What a notary did: sessions opened and ended, receipt in hand, per second; its processor time for each, in microseconds."""

    per_s: float
    cpu_us: float


def load_notary(notary: Notary, at_once: int, seconds: float) -> Load:
    """Open and end sessions for a while.

    Args:
        notary: Where.
        at_once: Connections, each with one session at a time, spread over the clients.
        seconds: How long new ones are opened.

    Raises:
        HostError: If the notary refuses or is silent.
    """
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(contextlib.closing(selectors.DefaultSelector()))
        cells = [_Cell(notary.sockets[number % len(notary.sockets)]) for number in range(at_once)]
        for cell in cells:
            stack.enter_context(contextlib.closing(cell.socket))
            selector.register(cell.socket, selectors.EVENT_READ, cell)
        started, worked = time.perf_counter(), cpu_s(notary.pid)
        for cell in cells:
            cell.open()
        ended, busy = 0, at_once
        while busy:
            ready = selector.select(_PATIENCE_S)
            if not ready:
                raise HostError("the notary under measurement is silent")
            goes_on = time.perf_counter() - started < seconds
            for key, _ in ready:
                if key.data.turn():
                    ended += 1
                    if goes_on:
                        key.data.open()
                    else:
                        busy -= 1
        took = time.perf_counter() - started
        return Load(ended / took, (cpu_s(notary.pid) - worked) / ended * 1e6)


def replies_before_disk(notary: Notary, sessions: int) -> int | None:
    """Return after how many replies the disk lacked some of what the notary had written; None where the kernel cannot say.

    One session at a time, so that nothing else is being written when a reply has come.
    """
    cell, early = _Cell(notary.sockets[0]), 0
    with contextlib.closing(cell.socket):
        for _ in range(sessions):
            opened = cell.ask(cell.open)
            pages = unsynced_pages(notary.folder)
            cell.ask(partial(cell.close, opened))
            more = unsynced_pages(notary.folder)
            if pages is None or more is None:
                return None
            early += bool(pages) + bool(more)
    return early


def written_bytes(notary: Notary) -> int:
    """Return the size of everything that a notary keeps."""
    return sum(path.stat().st_size for path in notary.folder.rglob("*") if path.is_file())

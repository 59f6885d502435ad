"""The notary's process: its key, its journal, one counter for each client, and the agent's socket.

1. make or read the signing key
2. replay the journal; a damaged one stops the notary here, with an alarm
3. close what a run before this one left open, with reason `crashed`
4. open a counter for each client of the roster
5. serve the agent until SIGTERM; then end every connection, which ends its sessions
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import signing
from appliance.core.errors import HostError, UsageError
from appliance.core.heartbeat import Heartbeat, sign_heartbeat
from appliance.core.names import random_id
from appliance.core.node import NodePaths
from appliance.core.receipt import End, timestamp
from inference.lines import MAX_CONTROL_LINE_BYTES, Request, listen, parse_request, serve_lines
from inference.notary.archive import Archive
from inference.notary.committer import Committer
from inference.notary.counter import Counter
from inference.notary.ledger import Ledger
from inference.notary.records import Places, lost_draft
from inference.notary.roster import Client, Roster, read_roster, write_roster

MAX_EXPORT = 10_000


def now() -> str:
    """Return the wall clock as a timestamp's text."""
    return timestamp(datetime.now(UTC))


def read_or_make_key(path: Path) -> Ed25519PrivateKey:
    """Read the node's signing key; make it on the first start. It never leaves the node."""
    if not path.exists():
        signing.write_private_key(path, Ed25519PrivateKey.generate())
    return signing.read_private_key(path)


class Notary:
    """A running notary. Make it with `start`, inside an event loop."""

    def __init__(self, node: str, paths: NodePaths) -> None:
        """Steps 1 and 2.

        Raises:
            HostError: If the key or the journal cannot be used.
        """
        self._paths = paths
        paths.notary.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.boot = random_id()
        self._key = key = read_or_make_key(paths.notary / "signing.key")
        self.public_key = signing.public_text(key)
        self.archive = Archive(paths.notary / "journal", Ledger(node, self.boot))
        try:
            self.archive.verify_last(self.public_key)
        except HostError:
            self.archive.close()
            raise
        self._committer = Committer(self.archive, key, now)
        self._counters: dict[str, tuple[str, Counter]] = {}  # name to pseudonym and counter
        self._ending: set[asyncio.Task[None]] = set()
        self._agents: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._roster_lock = asyncio.Lock()

    @classmethod
    async def start(cls, node: str, paths: NodePaths) -> Notary:
        """Start a notary and serve. Raises HostError or JournalUnavailableError."""
        notary = cls(node, paths)
        for receipt, record in tuple(notary.archive.ledger.open.items()):
            await notary._committer.close(record.client, receipt, lost_draft(End.CRASHED))
        await notary._set_clients(read_roster(notary._roster_file))
        notary._server = await listen(
            paths.notary_control, notary._serve_agent, mode=0o600, line_bytes=MAX_CONTROL_LINE_BYTES
        )
        return notary

    @property
    def _roster_file(self) -> Path:
        return self._paths.notary / "clients.json"

    async def _serve_agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._agents.add(writer)
        try:
            await serve_lines(reader, writer, parse_request, self._handle)
        finally:
            self._agents.discard(writer)

    async def _handle(self, request: Request) -> dict[str, Any]:
        if request.op == "status":
            request.take()
            return self._status()
        if request.op == "clients":
            return await self._replace_clients(Roster.parse({"clients": request.take("clients")[0]}))
        if request.op == "export":
            return self._export(*request.take("after", "limit"))
        if request.op == "admitted":
            return self._note_admitted(*request.take("position"))
        if request.op == "heartbeat":
            return self._beat(*request.take("nonce"))
        if request.op == "places":
            return await self._note_places(*request.take("places"))
        raise UsageError("no such op")

    def _status(self) -> dict[str, Any]:
        return {
            "public_key": self.public_key,
            "boot": self.boot,
            "records": len(self.archive),
            "open": len(self.archive.ledger.open),
            "tokens": self.archive.ledger.tokens,
            "waiting": self.archive.waiting,
            "bytes": self.archive.size,
            "max_bytes": self.archive.max_bytes,
            "placed": self.archive.placed,
        }

    def _export(self, after: Any, limit: Any) -> dict[str, Any]:
        if type(after) is not int or after < 0 or type(limit) is not int or not 1 <= limit <= MAX_EXPORT:
            raise UsageError("after is an integer from 0, limit one from 1 to 10000")
        entries = [{"position": p, "signed": signed} for p, signed in self.archive.texts(after, limit)]
        return {"entries": entries, "next": entries[-1]["position"] if entries else after}

    def _beat(self, nonce: Any) -> dict[str, Any]:
        ledger = self.archive.ledger
        facts = {
            "nonce": nonce,
            "node": ledger.node,
            "boot": ledger.boot,
            "at": now(),
            "receipts": len(self.archive),
            "open": len(ledger.open),
            "past": ledger.past,
        }
        signed = sign_heartbeat(Heartbeat.parse(facts), self._key)
        return {"signed": signed.model_dump(mode="json")}

    def _note_admitted(self, position: Any) -> dict[str, Any]:
        if type(position) is not int or position < 0:
            raise UsageError("position is an integer from 0")
        self.archive.note_admitted(position)
        return {"waiting": self.archive.waiting}

    async def _note_places(self, places: Any) -> dict[str, Any]:
        records = Places.parse({"places": places}).places
        await self._committer.place(records)
        return {"placed": self.archive.placed}

    async def _replace_clients(self, roster: Roster) -> dict[str, Any]:
        async with self._roster_lock:
            roster.by_name()
            write_roster(self._roster_file, roster)
            return await self._set_clients(roster)

    async def _set_clients(self, roster: Roster) -> dict[str, Any]:
        want = roster.by_name()
        have = {name: pseudonym for name, (pseudonym, _) in self._counters.items()}
        named = {name: client.pseudonym for name, client in want.items()}
        removed = sorted(name for name, pseudonym in have.items() if named.get(name) != pseudonym)
        added = sorted(name for name, pseudonym in named.items() if have.get(name) != pseudonym)
        for name in removed:
            _, counter = self._counters.pop(name)
            self._end(counter)
        self._remove_folders(keep=set(want))
        for name in added:
            self._counters[name] = (named[name], await self._open_counter(want[name]))
        for name, (_, counter) in self._counters.items():
            counter.budget = want[name].budget
        return {"added": added, "removed": removed}

    def _end(self, counter: Counter) -> None:
        task = asyncio.create_task(counter.close(End.REVOKED))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _open_counter(self, client: Client) -> Counter:
        # The folder is what the supervisor binds into the cell's view: the cell must be able to enter it there. Here
        # its parent keeps everybody out.
        folder = self._paths.notary_clients / client.name
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.chmod(0o755)
        counter = Counter(client.pseudonym, self.archive, self._committer, now, self._paths.log)
        counter.budget = client.budget
        await counter.listen(folder / "notary.sock")
        return counter

    def _remove_folders(self, keep: set[str]) -> None:
        parent = self._paths.notary_clients
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        parent.chmod(0o700)
        for folder in parent.iterdir():
            if folder.is_dir() and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. A fault in the writing task ends the notary rather than leave it deaf."""
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait((stopping, self._committer.task), return_when=asyncio.FIRST_COMPLETED)
        if stopping not in done:
            stopping.cancel()
            await self._committer.task

    async def aclose(self) -> None:
        """Stop: end every connection and its sessions, then close the journal."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._agents):
            writer.transport.abort()
        for _, counter in self._counters.values():
            await counter.close(End.CRASHED)
        if self._ending:
            await asyncio.wait(self._ending)
        await self._committer.aclose()
        self.archive.close()
        with suppress(OSError):
            self._paths.notary_control.unlink()


async def run_notary(node: str, paths: NodePaths) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notary = await Notary.start(node, paths)
    gc.freeze()  # what there is now stays: each collection would look at all of it again, for a twentieth of the time
    try:
        await notary.run_until(stop)
    finally:
        await notary.aclose()

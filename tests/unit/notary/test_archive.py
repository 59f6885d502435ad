"""The journal's segments: receipts keep their positions, what control has goes first, and nothing is lost when there is no room."""

from __future__ import annotations

import asyncio
import shutil
from functools import reduce
from pathlib import Path
from typing import Self

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter, segment

from appliance.core import signing
from appliance.core.errors import HostError, RefusedError
from appliance.core.heartbeat import SignedHeartbeat, extend_past, verify_heartbeat
from appliance.core.names import ZERO_DIGEST
from appliance.core.node import NodePaths
from appliance.core.receipt import SignedReceipt
from inference.notary import archive as module
from inference.notary.archive import Archive
from inference.notary.journal import JournalDamagedError, Segment
from inference.notary.ledger import Ledger
from inference.notary.notary import Notary


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a few receipts, so that a test fills many."""
    monkeypatch.setattr(Archive.__init__, "__kwdefaults__", {"max_bytes": 120_000, "segment_bytes": 8_000})


class World:
    """A notary, its agent, and cells of two clients."""

    def __init__(self, paths: NodePaths) -> None:
        self.paths = paths

    async def __aenter__(self) -> Self:
        self.notary = await Notary.start("node-1", self.paths)
        self.agent = await Line.to(self.paths.notary_control)
        await self.agent.ask("clients", clients=CLIENTS)
        self.cells = {name: await Line.to(counter(self.paths, name)) for name in "ab"}
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in (*self.cells.values(), self.agent):
            await line.close()
        await self.notary.aclose()

    async def session(self, client: str = "a") -> SignedReceipt:
        opened = await self.cells[client].ask("open", opening=OPENING)
        closed = await self.cells[client].ask("close", receipt=opened["receipt"], draft=DRAFT)
        return SignedReceipt.parse(closed["signed"])

    async def exported(self, after: int = 0) -> list[tuple[int, SignedReceipt]]:
        entries = (await self.agent.ask("export", after=after, limit=10_000))["entries"]
        return [
            (entry["position"], SignedReceipt.parse_canonical(entry["signed"].encode())) for entry in entries
        ]

    @property
    def segments(self) -> list[str]:
        return sorted(path.name for path in (self.paths.notary / "journal").iterdir())


def test_positions_and_chains_go_on_over_segments_and_restarts(paths: NodePaths) -> None:
    async def scenario() -> None:
        made: list[SignedReceipt] = []
        for _ in range(2):
            async with World(paths) as world:
                made += [await world.session(client) for client in "ab" * 6]
                assert len(world.segments) > 2
        async with World(paths) as world:
            assert await world.exported() == list(enumerate(made, 1))
            assert await world.exported(after=17) == list(enumerate(made, 1))[17:]
            for signed in made:
                client = "a" if signed.receipt.client == "a" * 64 else "b"
                told = await world.cells[client].ask("get", receipt=signed.receipt.id)
                assert SignedReceipt.parse(told["signed"]) == signed
        for client in "ab":
            chain = [signed.receipt for signed in made if signed.receipt.client == client * 64]
            assert [receipt.seq for receipt in chain] == list(range(1, 13))
            assert [receipt.prev for receipt in chain[1:]] == [receipt.digest for receipt in chain[:-1]]

    asyncio.run(scenario())


def test_a_session_that_is_open_over_segments_gets_its_receipt(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with World(paths) as world:
            opened = await world.cells["b"].ask("open", opening=OPENING)
            for _ in range(12):
                await world.session()
            shutil.copytree(paths.notary, paths.root / "copy")
        shutil.rmtree(paths.notary)
        (paths.root / "copy").rename(paths.notary)  # as after a kill
        async with World(paths) as world:
            told = await world.cells["b"].ask("get", receipt=opened["receipt"])
            assert told["signed"]["receipt"]["end"] == "crashed"
            assert told["signed"]["receipt"]["session"] == OPENING["session"]

    asyncio.run(scenario())


def test_a_full_journal_refuses_new_sessions_lets_open_ones_end_and_goes_on_once_control_has_come(
    paths: NodePaths,
) -> None:
    async def scenario() -> None:
        async with World(paths) as world:
            held = [(await world.cells["b"].ask("open", opening=OPENING))["receipt"] for _ in range(5)]
            made: list[SignedReceipt] = []
            while (opened := await world.cells["a"].ask("open", opening=OPENING)) != "journal_full":
                closed = await world.cells["a"].ask("close", receipt=opened["receipt"], draft=DRAFT)
                made.append(SignedReceipt.parse(closed["signed"]))
            assert len(made) > 10
            for receipt in held:  # each of them still ends
                closed = await world.cells["b"].ask("close", receipt=receipt, draft=DRAFT)
                made.append(SignedReceipt.parse(closed["signed"]))
            assert (await world.agent.ask("status"))["bytes"] <= 120_000
            assert await world.exported() == list(enumerate(made, 1)), "nothing is lost"
            assert await world.agent.ask("admitted", position=len(made)) == {"waiting": 0}
            await world.session()
            kept = await world.exported()
            assert 1 < len(kept) < len(made) + 1
            assert kept[-1][0] == len(made) + 1
            assert (await world.agent.ask("status"))["records"] == len(made) + 1
            gone = await world.cells["a"].ask("get", receipt=made[0].receipt.id)
            assert gone == "not_found"

    asyncio.run(scenario())


def test_what_control_has_not_admitted_is_never_dropped(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with World(paths) as world:
            for _ in range(12):
                await world.session()
            await world.agent.ask("admitted", position=3)
            while (opened := await world.cells["a"].ask("open", opening=OPENING)) != "journal_full":
                await world.cells["a"].ask("close", receipt=opened["receipt"], draft=DRAFT)
            positions = [position for position, _ in await world.exported()]
            assert positions[0] <= 4
            assert positions == list(range(positions[0], positions[-1] + 1))
            for wrong in (-1, True, "1", None):
                assert await world.agent.ask("admitted", position=wrong) == "usage"
            assert await world.agent.ask("admitted", position=10**9) == {"waiting": 0}

    asyncio.run(scenario())


@pytest.fixture
def filled(paths: NodePaths) -> NodePaths:
    """A journal of several segments, at rest."""

    async def fill() -> None:
        async with World(paths) as world:
            for client in "ab" * 8:
                await world.session(client)
            assert len(world.segments) > 3

    asyncio.run(fill())
    return paths


def test_a_missing_or_foreign_segment_stops_the_notary_with_an_alarm(filled: NodePaths) -> None:
    journal = filled.notary / "journal"
    assert len(reopened(journal)) == 16
    second, third = segment(filled, 2), segment(filled, 3)
    data = second.read_bytes()
    second.unlink()
    with pytest.raises(JournalDamagedError, match="ALARM"):
        reopened(journal)
    second.write_bytes(third.read_bytes())
    with pytest.raises(JournalDamagedError, match="ALARM"):
        reopened(journal)
    second.write_bytes(data)
    last = max(journal.iterdir())
    data = last.read_bytes()
    last.write_bytes(b"")  # a segment is there with its first frames, or not at all
    with pytest.raises(JournalDamagedError, match="ALARM"):
        reopened(journal)
    last.write_bytes(data)
    assert len(reopened(journal)) == 16


def test_a_segment_that_a_stopped_notary_was_making_is_swept_away(filled: NodePaths) -> None:
    torn = filled.notary / "journal" / "000000000099.frames.new"
    torn.write_bytes(b"half")
    assert len(reopened(filled.notary / "journal")) == 16
    assert not torn.exists()


def test_a_segment_that_cannot_be_begun_is_no_error(
    paths: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise module.JournalUnavailableError("no")

    async def scenario() -> None:
        async with World(paths) as world:
            with monkeypatch.context() as full:
                full.setattr(Segment, "make", fail)
                made = [await world.session() for _ in range(12)]
            assert len(world.segments) == 1
            assert await world.exported() == list(enumerate(made, 1))
            await world.session()
            assert len(world.segments) == 2

    asyncio.run(scenario())


def test_two_notaries_never_write_the_same_journal(filled: NodePaths) -> None:
    folder = filled.notary / "journal"
    archive = Archive(folder, Ledger("node-1", "0" * 32))
    with pytest.raises(HostError, match="another notary"):
        Archive(folder, Ledger("node-1", "0" * 32))
    archive.close()


def reopened(journal: Path) -> Archive:
    archive = Archive(journal, Ledger("node-1", "0" * 32))
    archive.close()
    return archive


def test_a_heartbeat_says_what_the_journal_is_and_only_this_nodes_key_signs_it(paths: NodePaths) -> None:
    async def scenario() -> None:
        nonce = "ab" * 16
        async with World(paths) as world:
            made = [await world.session(client) for client in "abab" * 4]
            await world.cells["a"].ask("open", opening=OPENING)
            signed = SignedHeartbeat.parse((await world.agent.ask("heartbeat", nonce=nonce))["signed"])
            verify_heartbeat(signed, world.notary.public_key)
            with pytest.raises(RefusedError):
                verify_heartbeat(signed, signing.public_text(Ed25519PrivateKey.generate()))
            past = reduce(extend_past, (receipt.receipt.digest for receipt in made), ZERO_DIGEST)
            heartbeat = signed.heartbeat
            assert (heartbeat.nonce, heartbeat.receipts, heartbeat.open) == (nonce, 16, 1)
            assert heartbeat.past == past
            assert await world.agent.ask("heartbeat", nonce="x") == "refused"
        async with World(paths) as world:  # the open session was closed as crashed
            signed = SignedHeartbeat.parse((await world.agent.ask("heartbeat", nonce=nonce))["signed"])
            (_, crashed) = (await world.exported())[-1]
            assert signed.heartbeat.past == extend_past(past, crashed.receipt.digest)

    asyncio.run(scenario())

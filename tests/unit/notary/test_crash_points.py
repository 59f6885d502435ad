"""The power may go at any moment: every session that was served has exactly one receipt, and every receipt that a client saw is kept.

A notary runs on a disk that remembers what was synced; then it is started from what that disk may hold after a crash, at a thousand
moments, and again after crashes of those starts.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter, paths_in
from recorded_disk import RecordedDisk

from appliance.core.names import ZERO_DIGEST
from appliance.core.node import NodePaths
from appliance.core.receipt import SignedReceipt
from inference.notary.archive import Archive
from inference.notary.journal import JournalDamagedError
from inference.notary.notary import Notary

POINTS = int(os.environ.get("CRASH_POINTS", "1000"))
TWICE = 5  # one start in so many is crashed as well


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a few receipts and a small journal, so that segments begin and go while it runs."""
    monkeypatch.setattr(Archive.__init__, "__kwdefaults__", {"max_bytes": 150_000, "segment_bytes": 12_000})


@dataclass
class Told:
    """What clients and control were told up to some moment.

    Attributes:
        opened: Receipt ids of sessions whose first byte a client may have seen.
        given: Receipts that clients have.
        admitted: Receipts that control has.
    """

    opened: set[str] = field(default_factory=set)
    given: dict[str, SignedReceipt] = field(default_factory=dict)
    admitted: dict[str, SignedReceipt] = field(default_factory=dict)

    @classmethod
    def up_to(cls, disk: RecordedDisk, at: int) -> Told:
        told = cls()
        for kind, what in disk.told(at):
            if kind == "opened":
                told.opened.add(what)
            else:
                (told.given if kind == "given" else told.admitted)[what.receipt.id] = what
        return told


async def serve(paths: NodePaths, disk: RecordedDisk) -> None:
    """Serve two clients, some at the same time, let control fetch now and then, and go without a word."""
    notary = await Notary.start("node-1", paths)
    agent = await Line.to(paths.notary_control)
    await agent.ask("clients", clients=CLIENTS)
    cells = [await Line.to(counter(paths, name)) for name in "abab"]

    async def session(cell: Line, *, leave_open: bool = False) -> None:
        opened = (await cell.ask("open", opening=OPENING))["receipt"]
        disk.mark(("opened", opened))
        if not leave_open:
            closed = await cell.ask("close", receipt=opened, draft=DRAFT)
            disk.mark(("given", SignedReceipt.parse(closed["signed"])))

    async def fetch() -> None:
        page = await agent.ask("export", after=0, limit=10_000)
        for entry in page["entries"]:
            disk.mark(("admitted", SignedReceipt.parse_canonical(entry["signed"].encode())))
        await agent.ask("admitted", position=page["next"])

    for turn in range(12):
        await asyncio.gather(
            *(session(cell, leave_open=turn % 5 == 4 and cell is cells[0]) for cell in cells)
        )
        if turn % 4 == 3:
            await fetch()
    disk.mark(("opened", (await cells[1].ask("open", opening=OPENING))["receipt"]))
    for line in (agent, *cells):
        line.writer.transport.abort()
    await notary.aclose()


async def start_again(paths: NodePaths) -> list[SignedReceipt]:
    """Start a notary, serve one more session of each client, and return all receipts that it has."""
    notary = await Notary.start("node-1", paths)
    agent = await Line.to(paths.notary_control)
    await agent.ask("clients", clients=CLIENTS)
    for name in "ab":
        cell = await Line.to(counter(paths, name))
        opened = await cell.ask("open", opening=OPENING)
        await cell.ask("close", receipt=opened["receipt"], draft=DRAFT)
        await cell.close()
    entries = (await agent.ask("export", after=0, limit=10_000))["entries"]
    await agent.close()
    await notary.aclose()
    return [SignedReceipt.parse_canonical(entry["signed"].encode()) for entry in entries]


def verify(told: Told, kept: list[SignedReceipt]) -> None:
    """Hold what is kept against what was told."""
    by_id = {signed.receipt.id: signed for signed in kept}
    assert len(by_id) == len(kept), "a session has two receipts"
    for receipt_id, signed in (told.given | told.admitted).items():
        assert by_id.get(receipt_id, signed) == signed, "a receipt was changed"
    everywhere = told.admitted | by_id
    assert set(told.given) <= set(everywhere), "a receipt that a client has is lost"
    assert told.opened <= set(everywhere), "a session that was served has no receipt"
    for client in "ab":
        chain = sorted(
            (signed.receipt for signed in everywhere.values() if signed.receipt.client == client * 64),
            key=lambda receipt: receipt.seq,
        )
        previous = ZERO_DIGEST
        for seq, receipt in enumerate(chain, 1):
            assert (receipt.seq, receipt.prev) == (seq, previous), "the chain has a gap or a fork"
            previous = receipt.digest


@contextmanager
def folder_of(files: dict[Path, bytes], root: Path) -> Iterator[NodePaths]:
    """The folder, as a crash left it."""
    shutil.rmtree(root)
    root.mkdir()
    paths = paths_in(root)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
    yield paths


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="apl-c-", dir="/dev/shm") as folder:
        yield Path(folder)


def recorded(root: Path, lies: Callable[[Path], bool] = lambda _: False) -> RecordedDisk:
    """Serve on a recorded disk."""
    disk = RecordedDisk(root)
    with disk.recording(lies=lies):
        asyncio.run(serve(paths_in(root), disk))
    return disk


def crash(disk: RecordedDisk, at: int, seed: int) -> None:
    """Let the power go once, or twice, and verify."""
    told = Told.up_to(disk, at)
    with folder_of(disk.after_crash(at, seed), disk.root) as paths:
        if seed % TWICE:
            verify(told, asyncio.run(start_again(paths)))
            return
        again = RecordedDisk(disk.root)
        with again.recording():
            asyncio.run(start_again(paths))
    point = random.Random(seed).randrange(again.points)
    with folder_of(again.after_crash(point, seed), disk.root) as paths:
        verify(told, asyncio.run(start_again(paths)))


def crash_often(disk: RecordedDisk, times: int) -> None:
    chance = random.Random(1)
    for seed in range(times):
        at = chance.randrange(disk.points)
        try:
            crash(disk, at, seed)
        except BaseException as failed:
            failed.add_note(f"the power went before operation {at} of {disk.points - 1}, seed {seed}")
            raise


def test_whenever_the_power_goes_every_session_has_one_receipt(root: Path) -> None:
    crash_often(recorded(root), POINTS)


@pytest.mark.parametrize(
    "lies",
    [lambda path: path.suffix == ".frames", lambda path: path.name == "journal"],
    ids=["of the segments", "of their folder"],
)
def test_a_notary_whose_fsync_does_nothing_is_found_out(root: Path, lies: Callable[[Path], bool]) -> None:
    disk = recorded(root, lies)
    with pytest.raises((AssertionError, JournalDamagedError)):
        crash_often(disk, 200)

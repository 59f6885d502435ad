"""Attacks on the journal of a node and on what it hands over: what the notary says at its start, and which alarm control raises.

Whoever writes into the journal can write frames that pass their check. What no rule of the journal excludes the notary takes for
true: it keeps no second copy. Control, which has the node's certified key and what came before, sees it then.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from control_cast import stored_node
from journal_frames import journal_file, payloads, write
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter, paths_in

from appliance.core import canonical, signing
from appliance.core.errors import HostError
from appliance.core.node import NodePaths
from appliance.core.receipt import Keyring, NodeKey, Receipt, make_keyring, sign_receipt
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.fleet.models import Node
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.receipts import pull_receipts
from inference.notary.archive import Archive
from inference.notary.journal import JournalDamagedError
from inference.notary.ledger import Ledger
from inference.notary.notary import Notary
from provisioning.answers import Receipts

STARTS, DAMAGED = "starts", "journal_damaged"
ORDER = "ababa"  # whose sessions the journal has, one after the other
A1, B1, A2, B2, A3 = range(5)

Frames = list[bytes]


@dataclass(frozen=True)
class Attack:
    """What is done to the frames, and who notices.

    Attributes:
        change: Of the frames, those of the receipts and whom they belong to: see `Journal`.
        notary: What it says at its start.
        control: The alarms that come of what is handed over.
        admitted: Receipts that control had before.
    """

    change: Callable[[Journal], Frames]
    notary: str
    control: set[AlarmKind] = field(default_factory=set)
    admitted: int = 0


@dataclass(frozen=True)
class Journal:
    """An honest journal.

    Attributes:
        paths: Where a stopped notary left it.
        frames: Its payloads.
        other: Those of another node's.
    """

    paths: NodePaths
    frames: Frames
    other: Frames

    def place(self, number: int) -> int:
        """Return where among the frames a receipt is."""
        return [n for n, frame in enumerate(self.frames) if b'"kind":"receipt"' in frame][number]

    def signed(self, number: int) -> dict[str, Any]:
        """Return a receipt with its signature."""
        return dict(json.loads(self.frames[self.place(number)])["signed"])

    def with_receipt(self, number: int, signed: dict[str, Any]) -> Frames:
        """Return the frames with another receipt in the place of one."""
        frames = list(self.frames)
        frames[self.place(number)] = framed(signed)
        return frames

    def edited(self, number: int, **changes: Any) -> Frames:
        """Return the frames with one receipt edited, under its old signature."""
        signed = self.signed(number)
        return self.with_receipt(number, signed | {"receipt": signed["receipt"] | changes})

    def stolen(self, number: int, **changes: Any) -> dict[str, Any]:
        """Return a receipt with changes, signed with the node's own key."""
        key = signing.read_private_key(self.paths.notary / "signing.key")
        receipt = Receipt.parse(self.signed(number)["receipt"] | changes)
        return sign_receipt(receipt, key).model_dump(mode="json")

    def without(self, *numbers: int) -> Frames:
        """Return the frames without some receipts, and without the records that their sessions were opened."""
        ids = [self.signed(number)["receipt"]["id"].encode() for number in numbers]
        return [frame for frame in self.frames if not any(one in frame for one in ids)]

    def until(self, number: int) -> Frames:
        """Return the frames in front of a receipt: its session is open."""
        return self.frames[: self.place(number)]

    def opened(self, number: int) -> bytes:
        """Return the record that the session of a receipt was opened."""
        return self.frames[self.place(number) - 1]

    def swapped(self, one: int, other: int) -> Frames:
        """Return the frames with two receipts in each other's place."""
        frames, a, b = list(self.frames), self.place(one), self.place(other)
        frames[a], frames[b] = frames[b], frames[a]
        return frames


def framed(signed: dict[str, Any]) -> bytes:
    """Return a receipt as a payload."""
    return canonical.encode({"kind": "receipt", "signed": signed})


ATTACKS = {
    "none": Attack(lambda j: j.frames, STARTS),
    "edited": Attack(
        lambda j: j.edited(A1, prompt_tokens=13), DAMAGED, {AlarmKind.BAD_SIGNATURE, AlarmKind.CHAIN_GAP}
    ),
    "last-edited": Attack(lambda j: j.edited(A3, prompt_tokens=13), DAMAGED, {AlarmKind.BAD_SIGNATURE}),
    "signature-edited": Attack(
        lambda j: j.with_receipt(A3, j.signed(A3) | {"signature": "A" * 86 + "=="}),
        DAMAGED,
        {AlarmKind.BAD_SIGNATURE},
    ),
    "content-smuggled": Attack(
        lambda j: j.with_receipt(A3, j.signed(A3) | {"note": "x"}), DAMAGED, {AlarmKind.BAD_SCHEMA}
    ),
    # The value is the same, and what is handed over is the value.
    "second-spelling": Attack(
        lambda j: [frame.replace(b'"kind":"receipt"', b'"kind": "receipt"') for frame in j.frames], DAMAGED
    ),
    "dropped": Attack(lambda j: j.without(A2), DAMAGED, {AlarmKind.CHAIN_GAP}),
    "first-dropped": Attack(lambda j: j.without(A1), DAMAGED, {AlarmKind.CHAIN_GAP}),
    # What nobody has seen nobody misses: the client has the receipt, and its number comes again.
    "truncated-before-it-was-admitted": Attack(lambda j: j.without(A3), STARTS),
    "truncated": Attack(lambda j: j.without(A3), STARTS, {AlarmKind.JOURNAL_SHRUNK}, admitted=5),
    # The session is open again, and the notary closes it as crashed, in the place of what control has.
    "truncated-to-an-open-session": Attack(lambda j: j.until(A3), STARTS, admitted=5),
    "truncated-to-one-that-was-open-before": Attack(
        lambda j: [*j.without(A1, B1, A2, B2, A3), j.opened(A3)],
        STARTS,
        {AlarmKind.JOURNAL_SHRUNK},
        admitted=5,
    ),
    "reordered": Attack(lambda j: j.swapped(A1, A2), DAMAGED, {AlarmKind.CHAIN_GAP}),
    # Each client's chain is as it was, and no receipt says where in the journal it is.
    "reordered-between-clients": Attack(
        lambda j: [
            *j.without(A3, B2, A2, B1),
            j.opened(A2),
            framed(j.signed(A2)),
            j.opened(B1),
            framed(j.signed(B1)),
        ],
        STARTS,
    ),
    # A session that ended and is open again would get a second receipt.
    "opening-replayed": Attack(lambda j: [*j.frames, j.opened(A1)], DAMAGED, admitted=5),
    "receipt-before-its-opening": Attack(lambda j: j.swapped(B1, A2), DAMAGED),
    "replayed": Attack(lambda j: [*j.frames, framed(j.signed(A1))], DAMAGED),
    "backup-restored": Attack(
        lambda j: j.without(A2, B2, A3), STARTS, {AlarmKind.JOURNAL_SHRUNK}, admitted=5
    ),
    "nodes-swapped": Attack(lambda j: j.other, DAMAGED, {AlarmKind.BAD_SIGNATURE}),
    "moved-to-another-client": Attack(
        lambda j: j.edited(A2, client="b" * 64), DAMAGED, {AlarmKind.BAD_SIGNATURE, AlarmKind.CHAIN_GAP}
    ),
    "re-signed": Attack(
        lambda j: j.with_receipt(A2, j.stolen(A2, prompt_tokens=13)),
        DAMAGED,
        {AlarmKind.CHAIN_GAP},
        admitted=2,
    ),
    "re-signed-after-it-was-admitted": Attack(
        lambda j: [*j.frames, framed(j.stolen(A2, prompt_tokens=13))],
        DAMAGED,
        {AlarmKind.RECEIPT_CHANGED},
        admitted=3,
    ),
    "forked": Attack(
        lambda j: [*j.frames, framed(j.stolen(A3, id="f" * 32, prompt_tokens=13))],
        DAMAGED,
        {AlarmKind.CHAIN_GAP},
        admitted=5,
    ),
    "re-signed-for-another-client": Attack(
        lambda j: [*j.frames, framed(j.stolen(A3, client="b" * 64))],
        DAMAGED,
        {AlarmKind.RECEIPT_CHANGED},
    ),
}


async def hold(paths: NodePaths, node: str, order: str) -> None:
    """Run a notary until it has signed so many receipts."""
    notary = await Notary.start(node, paths)
    agent = await Line.to(paths.notary_control)
    await agent.ask("clients", clients=CLIENTS)
    for client in order:
        cell = await Line.to(counter(paths, client))
        opened = await cell.ask("open", opening=OPENING)
        await cell.ask("close", receipt=opened["receipt"], draft=DRAFT)
        await cell.close()
    await agent.close()
    await notary.aclose()


@pytest.fixture(scope="module")
def honest() -> Iterator[Journal]:
    with tempfile.TemporaryDirectory(prefix="apl-j-") as folder:  # short: a socket's path has 108 bytes
        paths, other = paths_in(Path(folder) / "1"), paths_in(Path(folder) / "2")
        asyncio.run(hold(paths, "node-1", ORDER))
        asyncio.run(hold(other, "node-2", ORDER))
        yield Journal(paths, payloads(paths.notary), payloads(other.notary))


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="apl-j-") as folder:
        yield Path(folder)


def attacked(honest: Journal, root: Path, frames: Frames) -> NodePaths:
    """Return the node as it is after an attack on its journal."""
    shutil.copytree(honest.paths.root, root / "n", ignore=shutil.ignore_patterns("run"))
    paths = NodePaths(root / "n")
    paths.run.mkdir(parents=True)
    write(paths.notary, frames)
    return paths


async def handed_over(paths: NodePaths) -> list[dict[str, Any]]:
    """Start a notary and return what it hands over."""
    notary = await Notary.start("node-1", paths)
    agent = await Line.to(paths.notary_control)
    entries = (await agent.ask("export", after=0, limit=100))["entries"]
    await agent.close()
    await notary.aclose()
    return [json.loads(entry["signed"]) for entry in entries]


def start(paths: NodePaths) -> tuple[str, list[dict[str, Any]]]:
    """Return what a notary says at its start and what the node hands over then: past one that refuses, the frames as they are."""
    try:
        return STARTS, asyncio.run(handed_over(paths))
    except HostError as refused:
        records = [json.loads(payload) for payload in payloads(paths.notary)]
        return refused.code, [record["signed"] for record in records if record["kind"] == "receipt"]


@pytest.mark.parametrize("name", ATTACKS)
def test_the_notary_stops_with_an_alarm_where_the_journal_contradicts_itself(
    honest: Journal, root: Path, name: str
) -> None:
    attack = ATTACKS[name]
    paths = attacked(honest, root, attack.change(honest))
    before = journal_file(paths.notary).read_bytes()
    said, _ = start(paths)
    assert said == attack.notary
    if said == DAMAGED:
        assert journal_file(paths.notary).read_bytes() == before, "nothing is repaired"


# -- control


@dataclass
class Handed:
    """A node that hands over these receipts: what `pull_receipts` needs of a connection."""

    signed: list[dict[str, Any]]

    def receipts(self, after: int, limit: int) -> Receipts:
        entries = [
            {"position": place, "signed": canonical.encode(one).decode()}
            for place, one in enumerate(self.signed, 1)
            if after < place <= after + limit
        ]
        return Receipts.parse({"entries": entries, "next": min(after + limit, len(self.signed))})


@pytest.fixture
def node_row(db: None) -> Node:
    return stored_node("node-1")


@pytest.fixture
def keyring(honest: Journal, keys: ReconcilerKeys) -> Keyring:
    public = signing.public_text(signing.read_private_key(honest.paths.notary / "signing.key"))
    return make_keyring((NodeKey(node="node-1", public_key=public),), keys.log)


@pytest.fixture
def keys() -> ReconcilerKeys:
    from django.conf import settings

    from control.reconciler.keys import read_keys

    return read_keys(settings.PATHS)


def alarms() -> set[str]:
    return set(Alarm.objects.values_list("kind", flat=True))


def pull(node: Node, signed: list[dict[str, Any]], keyring: Keyring) -> int:
    return pull_receipts(node, Handed(signed), keyring)  # type: ignore[arg-type]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ATTACKS)
def test_control_raises_an_alarm_where_what_it_gets_contradicts_what_it_has(
    honest: Journal, root: Path, node_row: Node, keyring: Keyring, name: str
) -> None:
    attack = ATTACKS[name]
    true = [honest.signed(number) for number in range(len(ORDER))]
    pull(node_row, true[: attack.admitted], keyring)
    assert not alarms()
    _, signed = start(attacked(honest, root, attack.change(honest)))
    pull(node_row, signed, keyring)
    assert alarms() == attack.control
    for record in ReceiptRecord.objects.filter(pk__lte=attack.admitted):
        assert record.signed().model_dump(mode="json") in true, "what was admitted stays"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "then"),
    [
        (lambda j: j.without(A2, B2, A3), "bbba"),
        (lambda j: j.without(A2, B2, A3), "aaaa"),
        (lambda j: j.until(A3), "a"),
        (lambda j: j.without(A3), "aa"),
    ],
    ids=["backup-and-another-client", "backup", "open-session", "truncated"],
)
def test_a_past_that_was_replaced_before_control_looked_is_noticed_by_its_numbers(
    honest: Journal,
    root: Path,
    node_row: Node,
    keyring: Keyring,
    change: Callable[[Journal], Frames],
    then: str,
) -> None:
    pull(node_row, [honest.signed(number) for number in range(len(ORDER))], keyring)
    paths = attacked(honest, root, change(honest))
    asyncio.run(hold(paths, "node-1", then))
    _, signed = start(paths)
    assert len(signed) > len(ORDER)
    pull(node_row, signed, keyring)
    assert alarms() == {AlarmKind.CHAIN_GAP}


@pytest.mark.django_db
def test_what_a_notary_sees_nothing_wrong_with_control_still_does(
    honest: Journal, root: Path, node_row: Node, keyring: Keyring
) -> None:
    """The positive control of the table: with the attacker's own key certified there is no alarm left."""
    forged = honest.stolen(A3, prompt_tokens=13)
    paths = attacked(honest, root, honest.with_receipt(A3, forged))
    said, signed = start(paths)
    assert said == STARTS
    pull(node_row, signed, keyring)
    assert not alarms()
    assert signed[A3] == forged


def test_one_byte_changed_anywhere_in_a_journal_never_changes_what_it_says(root: Path) -> None:
    paths = paths_in(root / "n")
    asyncio.run(hold(paths, "node-1", "a"))
    file, said = journal_file(paths.notary), []
    whole, honest = file.read_bytes(), payloads(paths.notary)
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :])
        try:
            archive = Archive(paths.notary / "journal", Ledger("node-1", "0" * 32))
        except JournalDamagedError:
            said.append(DAMAGED)
            continue
        archive.close()
        said.append("cut")
        assert payloads(paths.notary) == honest[: len(payloads(paths.notary))]
    assert said.count("cut") < 64, "a length that grew looks like a torn end, and nothing else does"

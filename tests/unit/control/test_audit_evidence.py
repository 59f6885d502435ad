"""The journal is in the log, beside receipts and never taken for one; every attack on an export has its name."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from control_cast import OverTls, node_request, stored_node
from django.conf import settings
from django.db import connections
from simulated_node import SimulatedNode

from appliance.cli import main
from appliance.core import canonical
from appliance.core.errors import RefusedError
from appliance.core.names import ZERO_DIGEST, encode_base64
from appliance.core.receipt import NodeKey, SignedReceipt, make_keyring
from appliance.core.signing import public_text
from appliance.transparency.checkpoint import Policy
from appliance.transparency.errors import InclusionError, LogError
from appliance.transparency.merkle import inclusion_proof, leaf_hash, root
from appliance.transparency.proof import Proof
from appliance.transparency.tiles import Tiles
from control.audit.models import ReceiptRecord
from control.audit.services import admit_receipt
from control.clients.models import Client
from control.clients.requests import NewClient
from control.clients.services import create_client, resume_client, suspend_client
from control.fleet.requests import NewNode
from control.fleet.services import add_node
from control.journal.actors import acting
from control.journal.event import Actor, ActorKind, Event, Source
from control.journal.evidence import Evidence, EvidenceHead, EvidenceLine, verify_evidence
from control.journal.models import AuditEvent, EventPlace
from control.journal.proving import prove_event, write_evidence
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.pins.models import ModelPin
from control.reconciler.keys import ReconcilerKeys
from control.transparency import keeper as module
from control.transparency.keeper import Keeper, waiting_events
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import prove

pytestmark = pytest.mark.django_db


class World:
    """A node with receipts, an operator at work, and the keeper of the log."""

    def __init__(self, keys: ReconcilerKeys, folder: Path) -> None:
        self.keys = keys
        self.row = stored_node()
        self.node = SimulatedNode("node-a", public_text(keys.bundle))
        certified = NodeKey(node="node-a", public_key=public_text(self.node.receipt_key))
        self.keyring = make_keyring((certified,), keys.log)
        self.folder = folder
        self.keeper = Keeper(folder, keys.checkpoints)
        self.policy = Policy(*keys.checkpoints.verifier_keys)

    def serve(self, count: int) -> None:
        for _ in range(count):
            assert admit_receipt(self.row, self.node.issue_receipt("ab" * 32), self.keyring)

    def work(self, times: int = 1) -> None:
        client = Client.objects.filter(name="acme").first() or create_client(NewClient(name="acme"))
        for _ in range(times):
            suspend_client(client)
            resume_client(client)

    def export(self, after: int = 0) -> list[bytes]:
        return b"".join(write_evidence(after, self.folder)).splitlines(keepends=True)

    def verify(self, lines: list[bytes], earlier: Evidence | None = None) -> Evidence:
        return verify_evidence(lines, self.policy, earlier)


@pytest.fixture
def world(
    db: None, keys: ReconcilerKeys, pin: ModelPin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    return World(keys, tmp_path / "log")


def test_events_and_receipts_share_one_tree(world: World) -> None:
    for receipts in (2, 0, 300):
        world.serve(receipts)
        world.work(2)
        waiting = waiting_events().count()
        assert world.keeper.keep() == receipts + waiting
    size = CheckpointRecord.objects.latest("size").size
    places = [*EventPlace.objects.values_list("place", flat=True)]
    assert sorted([*places, *ReceiptRecord.objects.values_list("place", flat=True)]) == list(range(size))
    assert places == sorted(places), "events are logged in their order"
    for row in AuditEvent.objects.all():
        prove_event(row, world.folder).verify(row.event().canonical_bytes(), world.policy)
    for receipt in ReceiptRecord.objects.filter(seq__in=(1, 2, 3, 302)):
        prove(receipt, world.folder).verify(receipt.signed().canonical_bytes(), world.policy)
    assert world.keeper.keep() == 0


def test_an_event_is_never_read_as_a_receipt_nor_a_receipt_as_an_event(world: World) -> None:
    world.serve(1)
    world.work()
    world.keeper.keep()
    row, receipt = AuditEvent.objects.last(), ReceiptRecord.objects.get()
    assert row is not None
    event, signed = row.text.encode(), receipt.signed().canonical_bytes()
    Event.parse_canonical(event)
    SignedReceipt.parse_canonical(signed)
    for schema, other in ((Event, signed), (SignedReceipt, event)):
        with pytest.raises(RefusedError):
            schema.parse_canonical(other)
    with pytest.raises(InclusionError):
        prove_event(row, world.folder).verify(signed, world.policy)


def test_an_operator_s_work_makes_no_receipt_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 60.0)
    world.work()
    events = waiting_events().count()
    assert world.keeper.keep() == events  # the first at once
    world.work()
    assert world.keeper.keep() == 0  # the next in a minute
    world.serve(1)
    assert world.keeper.keep() == 1 + 2  # the first receipt at once, and what waits goes along
    world.serve(1)
    assert world.keeper.keep() == 0


def test_a_stop_before_the_commit_loses_and_doubles_no_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.work(2)
    with monkeypatch.context() as patched:

        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(CheckpointRecord.objects, "create", stop)
        with pytest.raises(KeyboardInterrupt):
            world.keeper.keep()
    assert not EventPlace.objects.exists()
    world.serve(3)
    world.keeper.keep()
    assert world.verify(world.export()).last == AuditEvent.objects.count()


def test_an_export_verifies_with_the_log_s_keys_alone(world: World) -> None:
    world.serve(3)
    world.work(3)
    world.keeper.keep()
    world.work()  # not logged yet: not in the export
    shown = world.verify(world.export())
    assert (shown.after, shown.last) == (0, AuditEvent.objects.count() - 2)
    assert shown.head == AuditEvent.objects.get(number=shown.last).digest
    part = world.verify(world.export(after=4))
    assert (part.after, part.last, part.head) == (4, shown.last, shown.head)
    with pytest.raises(RefusedError):
        world.export(after=shown.last + 1)


@pytest.fixture
def lines(world: World) -> list[bytes]:
    """Of an export of eight events or more."""
    world.serve(2)
    world.work(2)
    world.keeper.keep()
    world.serve(1)
    world.work(2)
    world.keeper.keep()
    exported = world.export()
    assert len(exported) > 8
    return exported


def edited(line: bytes, **changes: Any) -> bytes:
    """Return a line with its event changed."""
    told = json.loads(line)
    told["event"].update(changes)
    return canonical.encode(told) + b"\n"


def header(line: bytes, **changes: Any) -> bytes:
    """Return a line with its own members changed."""
    return canonical.encode({**json.loads(line), **changes}) + b"\n"


def numbered(lines: list[bytes]) -> list[bytes]:
    """Return lines with numbers and digests made to follow, as a forger would who has no key of the log."""
    made, prev = [], ZERO_DIGEST
    for number, line in enumerate(lines[1:], 1):
        made.append(edited(line, number=number, prev=prev))
        prev = Event.parse(json.loads(made[-1])["event"]).digest
    return [header(lines[0], events=len(made), head=prev), *made]


def digest_of(line: bytes) -> str:
    return Event.parse(json.loads(line)["event"]).digest


def id_of(line: bytes) -> str:
    return str(json.loads(line)["event"]["id"])


Attack = Callable[[list[bytes]], list[bytes]]
ATTACKS: dict[str, tuple[str, Attack]] = {
    "an event is edited": (
        "log_inclusion",
        lambda x: [*x[:3], edited(x[3], at="2026-01-01T00:00:00.000Z"), *x[4:]],
    ),
    "the last event is edited": (
        "log_inclusion",
        lambda x: [
            header(x[0], head=digest_of(edited(x[-1], id="0" * 32))),
            *x[1:-1],
            edited(x[-1], id="0" * 32),
        ],
    ),
    "another one is blamed": (
        "log_inclusion",
        lambda x: [*x[:3], edited(x[3], actor={"kind": "unix", "name": "eve", "token": None}), *x[4:]],
    ),
    "ids are swapped": (
        "log_inclusion",
        lambda x: [*x[:3], edited(x[3], id=id_of(x[4])), edited(x[4], id=id_of(x[3])), *x[5:]],
    ),
    "an event is dropped": ("audit_number", lambda x: [*x[:3], *x[4:]]),
    "an event is dropped and the head told": (
        "audit_number",
        lambda x: [header(x[0], events=len(x) - 2), *x[1:3], *x[4:]],
    ),
    "an event is dropped and the rest renumbered": ("log_inclusion", lambda x: numbered([*x[:3], *x[4:]])),
    "the first event is dropped": ("audit_number", lambda x: [x[0], *x[2:]]),
    "the first event is dropped and the head told": (
        "audit_chain",
        lambda x: [header(x[0], events=len(x) - 2), edited(x[2], number=1), *x[3:]],
    ),
    "events are reordered": ("audit_number", lambda x: [*x[:3], x[4], x[3], *x[5:]]),
    "events are reordered and renumbered": (
        "log_inclusion",
        lambda x: numbered([*x[:3], x[4], x[3], *x[5:]]),
    ),
    "an event is doubled": ("audit_number", lambda x: [*x[:3], x[3], *x[3:]]),
    "an event is inserted": (
        "log_inclusion",
        lambda x: numbered([*x[:3], edited(x[3], id="0" * 32), *x[3:]]),
    ),
    "the link is edited": ("audit_chain", lambda x: [*x[:3], edited(x[3], prev="0" * 64), *x[4:]]),
    "the end is cut off": ("audit_truncated", lambda x: x[:-2]),
    "everything is cut off": ("audit_truncated", lambda x: x[:1]),
    "the end is cut in a line": ("audit_format", lambda x: [*x[:-1], x[-1][:-9]]),
    "there is more than the head tells": ("audit_truncated", lambda x: [header(x[0], events=2), *x[1:]]),
    "the head names another end": ("audit_chain", lambda x: [header(x[0], head="0" * 64), *x[1:]]),
    "a place is another event's": (
        "log_inclusion",
        lambda x: [*x[:3], header(x[3], place=json.loads(x[4])["place"]), *x[4:]],
    ),
    "a place is before the last one's": ("audit_number", lambda x: [*x[:3], header(x[3], place=0), *x[4:]]),
    "a hash is left out": (
        "log_inclusion",
        lambda x: [*x[:3], header(x[3], hashes=json.loads(x[3])["hashes"][1:]), *x[4:]],
    ),
    "the log's head is edited": (
        "log_signature",
        lambda x: [header(x[0], checkpoint=resized(json.loads(x[0])["checkpoint"])), *x[1:]],
    ),
    "a member is smuggled in": ("audit_format", lambda x: [*x[:3], header(x[3], note="x"), *x[4:]]),
    "a fact is smuggled in": ("audit_format", lambda x: [*x[:3], edited(x[3], prompt="x"), *x[4:]]),
    "white space": ("audit_format", lambda x: [*x[:3], x[3].replace(b",", b", ", 1), *x[4:]]),
    "nothing": ("audit_format", lambda x: []),
}


def resized(note: str) -> str:
    origin, size, rest = note.split("\n", 2)
    return "\n".join((origin, str(int(size) + 1), rest))


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_on_an_export_has_its_name(attack: str, world: World, lines: list[bytes]) -> None:
    assert world.verify(lines).last == len(lines) - 1, "what is attacked verifies"
    code, change = ATTACKS[attack]
    with pytest.raises((RefusedError, LogError)) as refused:
        world.verify(change(lines))
    assert refused.value.code == code, refused.value


def test_a_line_of_an_export_is_a_proof_as_others_read_it(world: World, lines: list[bytes]) -> None:
    """The parts of a line make a c2sp.org/tlog-proof, which any verifier of such logs reads."""
    told = json.loads(lines[5])
    checkpoint = json.loads(lines[0])["checkpoint"]
    text = "\n".join(["c2sp.org/tlog-proof@v1", f"index {told['place']}", *told["hashes"], "", checkpoint])
    entry = Event.parse(told["event"]).canonical_bytes()
    Proof.parse(text.encode()).verify(entry, world.policy)


def test_a_log_of_somebody_else_is_refused(world: World, lines: list[bytes], keys: ReconcilerKeys) -> None:
    others = replace(keys.checkpoints, origin="elsewhere.example/log").verifier_keys
    with pytest.raises(LogError) as refused:
        verify_evidence(lines, Policy(*others))
    assert refused.value.code == "log_other"


# -- what only an earlier export shows: the log's own keeper rewrites the past


def test_a_journal_that_was_cut_off_everywhere_is_refused_by_who_kept_an_export(
    world: World, lines: list[bytes]
) -> None:
    earlier = world.verify(lines)
    cut = [header(lines[0], events=len(lines) - 3, head=digest_of(lines[-3])), *lines[1:-2]]
    assert world.verify(cut).last == earlier.last - 2, "nothing in the file itself shows it"
    with pytest.raises(RefusedError) as refused:
        world.verify(cut, earlier)
    assert refused.value.code == "audit_truncated"


def test_later_exports_go_on_from_an_earlier_one(world: World, lines: list[bytes]) -> None:
    earlier = world.verify(lines)
    world.work(2)
    world.keeper.keep()
    for after in (0, 3, earlier.last):
        assert world.verify(world.export(after), earlier).last == earlier.last + 4
    with pytest.raises(RefusedError) as refused:
        world.verify(world.export(earlier.last + 1), earlier)
    assert refused.value.code == "audit_number"


@pytest.mark.parametrize("after", [0, "last"])
def test_a_past_that_was_rewritten_with_the_log_s_keys_is_refused_by_who_kept_an_export(
    world: World, lines: list[bytes], after: int | str
) -> None:
    earlier = world.verify(lines)
    forged = numbered([lines[0], *lines[1:3], edited(lines[3], id="0" * 32), *lines[4:]])
    events = [Event.parse(json.loads(line)["event"]) for line in forged[1:]]
    following = events[-1].model_copy(
        update={"number": len(events) + 1, "prev": events[-1].digest, "id": "1" * 32}
    )
    from_ = 0 if after == 0 else len(events)
    made = relogged(world, [*events, following], from_)
    assert world.verify(made).last == len(events) + 1, "to a stranger it is a journal like any other"
    with pytest.raises(RefusedError) as refused:
        world.verify(made, earlier)
    assert refused.value.code == "audit_chain"


def test_a_keeper_that_logs_what_does_not_follow_is_refused(world: World, lines: list[bytes]) -> None:
    events = [Event.parse(json.loads(line)["event"]) for line in lines[1:]]
    events[2] = events[2].model_copy(update={"id": "0" * 32})  # logged so, and the next one names the other
    with pytest.raises(RefusedError) as refused:
        world.verify(relogged(world, events, 0))
    assert (refused.value.code, refused.value.field) == ("audit_chain", "event 4")


def relogged(world: World, events: list[Event], after: int) -> list[bytes]:
    """Return an export of a log that holds these events alone, signed with the log's own keys."""
    tiles = Tiles(world.folder.parent / "forged", 0)
    padding = [leaf_hash(bytes([n])) for n in range(20)]
    tiles.append([*padding, *(leaf_hash(event.canonical_bytes()) for event in events)])
    tiles.publish()
    note = world.keys.checkpoints.sign(tiles.size, root(tiles, tiles.size), 1)
    head = EvidenceHead(
        after=after, checkpoint=note.render().decode(), events=len(events) - after, head=events[-1].digest
    )
    parts = [
        EvidenceLine(
            event=event,
            hashes=tuple(map(encode_base64, inclusion_proof(tiles, 20 + n, tiles.size))),
            place=20 + n,
        )
        for n, event in enumerate(events)
    ]
    return [part.canonical_bytes() + b"\n" for part in (head, *parts[after:])]


# -- by the command line and the API


def test_the_command_line_exports_and_verifies(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.folder = settings.PATHS.log
    world.keeper = Keeper(world.folder, world.keys.checkpoints)
    out, later = tmp_path / "events.jsonl", tmp_path / "later.jsonl"
    assert main(["control", "audit", "export", "--out", str(out)]) == 1, "the log is empty"
    world.work(2)
    world.keeper.keep()
    assert main(["control", "audit", "export", "--out", str(out)]) == 0
    world.work()
    world.keeper.keep()
    assert main(["control", "audit", "export", "--after", "3", "--out", str(later)]) == 0
    (tmp_path / "log.vkey").write_text(
        "".join(f"{key.render()}\n" for key in world.keys.checkpoints.verifier_keys)
    )
    capsys.readouterr()
    assert main(["control", "audit", "verify", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["first"], told["last"]) == (1, AuditEvent.objects.count() - 2)
    assert main(["control", "audit", "verify", str(later), "--earlier", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"] == 4
    assert main(["control", "audit", "verify", str(out), "--earlier", str(later)]) == 1
    whole = out.read_bytes()
    out.write_bytes(whole.replace(b'"suspended"', b'"active"', 1))
    assert main(["control", "audit", "verify", str(out)]) == 1
    out.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    assert main(["control", "audit", "verify", str(out)]) == 1
    assert main(["control", "audit", "verify", str(tmp_path / "none")]) == 2
    capsys.readouterr()


def test_the_api_gives_evidence_and_proofs(
    world: World, api: OverTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.keeper = Keeper(settings.PATHS.log, world.keys.checkpoints)
    assert api.get("/api/v1/events/evidence").status_code == 503
    world.work(1)
    world.keeper.keep()
    answer = api.get("/api/v1/events/evidence", {"after": "2"})
    content = b"".join(answer.streaming_content)
    assert world.verify(content.splitlines(keepends=True)).after == 2
    row = AuditEvent.objects.get(number=3)
    proof = Proof.parse(api.get("/api/v1/events/3/proof").content)
    proof.verify(api.get("/api/v1/events/3/entry").content, world.policy)
    assert api.get("/api/v1/events/3").json()["place"] == row.place == proof.index
    assert api.get("/api/v1/events/evidence", {"after": "999"}).status_code == 400


# -- two at once


@pytest.mark.django_db(transaction=True)
def test_those_who_act_at_once_get_numbers_of_their_own(keys: ReconcilerKeys, tmp_path: Path) -> None:
    def add(first: int) -> None:
        try:
            for number in range(first, first + 5):
                with acting(Source.CLI, Actor(kind=ActorKind.UNIX, name=f"thread-{first}")):
                    add_node(NewNode.parse(node_request(f"node-{number}", number)))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=add, args=(first,)) for first in (10, 20, 30, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Keeper(tmp_path / "log", keys.checkpoints).keep()
    shown = verify_evidence(
        b"".join(write_evidence(0, tmp_path / "log")).splitlines(keepends=True),
        Policy(*keys.checkpoints.verifier_keys),
    )
    assert shown.last == AuditEvent.objects.count() == 20


def test_a_thread_that_nobody_sent_changes_nothing() -> None:
    """The actor is not inherited: whoever starts a thread says again who acts in it."""
    found: list[str] = []

    def act() -> None:
        try:
            record(Verb.NODE_ADD, "node-a")
        except RuntimeError as error:
            found.append(type(error).__name__)
        finally:
            connections.close_all()

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert found == ["NoActorError"]

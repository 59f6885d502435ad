"""Heartbeats: a past that was replaced shows although nothing new comes, and so does a node that falls silent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from control_cast import stored_node
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.utils import timezone
from simulated_node import SimulatedNode

from appliance.core.receipt import Keyring, NodeKey, make_keyring
from appliance.core.signing import public_text
from control.audit.heartbeats import take_heartbeat, watch_silence
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.fleet.models import Node
from control.reconciler import receipts as module
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.receipts import pull_receipts
from provisioning.node import NodeClient

pytestmark = pytest.mark.django_db
CLIENTS = ("a" * 64, "b" * 64)


class World:
    """A node, and control's row and keyring of it."""

    def __init__(self, keys: ReconcilerKeys) -> None:
        self.node = SimulatedNode("node-a", public_text(keys.bundle))
        self.row = stored_node()
        self.row.receipt_public_key = public_text(self.node.receipt_key)
        self.row.save()
        certified = NodeKey(node="node-a", public_key=self.row.receipt_public_key)
        self.keyring: Keyring = make_keyring((certified,), keys.log)

    def serve(self, count: int) -> None:
        for number in range(count):
            self.node.issue_receipt(CLIENTS[number % 2])

    def pull(self) -> int:
        client = NodeClient(self.node)
        row = Node.objects.get(pk=self.row.pk)
        return pull_receipts(row, client, self.keyring, take_heartbeat(row, client))


@pytest.fixture
def world(db: None, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "PIECE", 3)
    return World(keys)


def alarms() -> dict[str, int]:
    return dict(Alarm.objects.values_list("kind", "count"))


def test_an_honest_node_raises_nothing_however_its_receipts_come(world: World) -> None:
    for count in (0, 1, 5, 0, 9, 0):
        world.serve(count)
        assert world.pull() == count
    assert alarms() == {}
    row = Node.objects.get()
    assert row.heartbeat["receipts"] == row.receipts_position == 15
    assert row.heartbeat["past"] == row.receipts_past
    assert row.heartbeat_at is not None


def test_a_past_that_was_replaced_shows_though_nothing_new_comes_and_is_kept_as_evidence(
    world: World,
) -> None:
    world.serve(8)
    world.pull()
    before = set(ReceiptRecord.objects.values_list("receipt_id", flat=True))
    world.node.journal.clear()
    world.serve(8)
    world.pull()
    assert alarms()[AlarmKind.JOURNAL_REPLACED] == 1
    now = {entry["receipt"]["id"] for entry in world.node.journal}
    assert set(ReceiptRecord.objects.values_list("receipt_id", flat=True)) == before | now
    world.pull()
    assert alarms()[AlarmKind.JOURNAL_REPLACED] == 1, "it is over until something else is replaced"


def test_a_past_that_was_replaced_shows_when_more_comes(world: World) -> None:
    world.serve(8)
    world.pull()
    world.node.journal.clear()
    world.serve(13)
    world.pull()
    assert alarms()[AlarmKind.JOURNAL_REPLACED] == 1


def test_a_node_whose_heartbeat_is_not_of_its_journal_makes_control_read_it_again_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.serve(8)
    world.pull()
    honest = SimulatedNode.op_heartbeat

    def lie(node: SimulatedNode, nonce: str) -> object:
        kept, node.journal = node.journal, [*node.journal[:-1], node.journal[0]]
        try:
            return honest(node, nonce)
        finally:
            node.journal = kept

    monkeypatch.setattr(SimulatedNode, "op_heartbeat", lie)
    world.pull()
    world.node.seen.clear()
    for _ in range(3):
        world.pull()
    assert world.node.ops().count("receipts") <= 3 * (8 // 3 + 2)
    assert alarms()[AlarmKind.JOURNAL_REPLACED] >= 1


def test_receipts_that_the_node_no_longer_has_are_an_alarm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.serve(8)
    honest = SimulatedNode.op_receipts
    monkeypatch.setattr(
        SimulatedNode, "op_receipts", lambda node, after, limit: honest(node, max(after, 4), limit)
    )
    assert world.pull() == 4
    assert alarms() == {AlarmKind.RECEIPTS_MISSING: 1, AlarmKind.CHAIN_GAP: 1}
    world.serve(2)
    assert world.pull() == 2
    assert alarms() == {AlarmKind.RECEIPTS_MISSING: 1, AlarmKind.CHAIN_GAP: 1}, "the digest is known again"


def test_a_journal_that_is_read_again_may_begin_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.serve(8)
    world.pull()
    honest = SimulatedNode.op_receipts
    monkeypatch.setattr(
        SimulatedNode, "op_receipts", lambda node, after, limit: honest(node, max(after, 4), limit)
    )
    Node.objects.update(receipts_past="f" * 64)  # as if the journal had been replaced
    world.pull()
    for count in (2, 5):
        world.serve(count)
        assert world.pull() == count
    assert alarms() == {AlarmKind.JOURNAL_REPLACED: 1}
    row = Node.objects.get()
    assert row.receipts_past == row.heartbeat["past"], (
        "the digest is known again although it was never at rest"
    )


def test_an_old_heartbeat_or_one_of_another_key_is_an_alarm_and_counts_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SimulatedNode.op_heartbeat
    with monkeypatch.context() as replayed:
        replayed.setattr(SimulatedNode, "op_heartbeat", lambda node, nonce: honest(node, "0" * 32))
        world.pull()
    assert alarms() == {AlarmKind.BAD_SIGNATURE: 1}
    world.node.receipt_key = Ed25519PrivateKey.generate()
    world.pull()
    assert alarms() == {AlarmKind.BAD_SIGNATURE: 2}
    assert Node.objects.get().heartbeat_at is None


def test_silence_is_one_alarm_until_the_node_speaks_again(world: World) -> None:
    limit = timedelta(minutes=5)
    assert watch_silence(limit) == 0, "a node that never spoke has another trouble"
    world.pull()
    assert watch_silence(limit) == 0
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=6))
    assert [watch_silence(limit) for _ in range(3)] == [1, 0, 0]
    world.pull()
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=7))
    assert watch_silence(limit) == 1
    assert Alarm.objects.filter(kind=AlarmKind.NODE_SILENT).count() == 2

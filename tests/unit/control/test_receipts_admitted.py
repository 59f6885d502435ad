"""A piece of a node's journal is admitted as its receipts would be one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from control_cast import stored_node
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from simulated_node import SimulatedNode

from appliance.core.errors import ReceiptError
from appliance.core.receipt import Keyring, NodeKey, SignedReceipt, make_keyring
from appliance.core.signing import public_text
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.fleet.models import Node
from control.reconciler import receipts as module
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.receipts import pull_receipts
from control.transparency.keeper import Keeper
from provisioning.node import NodeClient

pytestmark = pytest.mark.django_db

ACME, BOLT = "a" * 64, "b" * 64


@pytest.fixture
def node(db: None) -> Node:
    return stored_node()


@pytest.fixture
def simulated(keys: ReconcilerKeys) -> SimulatedNode:
    return SimulatedNode("node-a", public_text(keys.bundle))


@pytest.fixture
def keyring(simulated: SimulatedNode, keys: ReconcilerKeys) -> Keyring:
    return make_keyring((NodeKey(node="node-a", public_key=public_text(simulated.receipt_key)),), keys.log)


def pull(node: Node, simulated: SimulatedNode, keyring: Keyring) -> int:
    with NodeClient(simulated) as client:
        return pull_receipts(node, client, keyring)


def alarms() -> list[tuple[str, str, int]]:
    return sorted(Alarm.objects.values_list("kind", "subject", "count"))


def stored() -> list[SignedReceipt]:
    return [record.signed() for record in ReceiptRecord.objects.all()]


def entry(signed: SignedReceipt) -> dict[str, Any]:
    return signed.model_dump(mode="json")


@pytest.mark.parametrize("piece", [1, 2, 500])
def test_interleaved_chains_follow_whatever_the_pieces_are(
    piece: int, node: Node, simulated: SimulatedNode, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    issued = [simulated.issue_receipt(client) for client in (ACME, ACME, BOLT, ACME, BOLT)]
    assert pull(node, simulated, keyring) == 5
    issued += [simulated.issue_receipt(client) for client in (BOLT, ACME)]
    assert pull(node, simulated, keyring) == 2
    assert stored() == issued
    assert alarms() == []
    assert all(ReceiptRecord.objects.values_list("verified", flat=True))
    assert Node.objects.get().receipts_position == 7


@pytest.mark.parametrize("piece", [1, 500])
def test_a_receipt_that_comes_twice_is_stored_once(
    piece: int, node: Node, simulated: SimulatedNode, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    first = simulated.issue_receipt(ACME)
    simulated.journal.append(entry(first))
    second = simulated.issue_receipt(ACME)
    assert pull(node, simulated, keyring) == 2
    assert stored() == [first, second]
    assert alarms() == []


@pytest.mark.parametrize("piece", [1, 500])
def test_an_id_that_comes_again_with_other_bytes_is_an_alarm_and_changes_no_chain(
    piece: int, node: Node, simulated: SimulatedNode, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    first = simulated.issue_receipt(ACME)
    simulated.issue_receipt(ACME, id=first.receipt.id, requests=7)
    simulated.issue_receipt(BOLT)
    assert pull(node, simulated, keyring) == 2
    assert stored()[0] == first
    assert alarms() == [(AlarmKind.RECEIPT_CHANGED, first.receipt.id, 1)]
    follower = simulated.issue_receipt(ACME, seq=2, prev=first.receipt.digest)
    assert pull(node, simulated, keyring) == 1
    assert stored()[-1] == follower
    assert len(alarms()) == 1


def test_another_signature_over_the_same_receipt_is_other_bytes(
    node: Node, simulated: SimulatedNode, keyring: Keyring
) -> None:
    first = simulated.issue_receipt(ACME)
    simulated.journal.append(entry(first) | {"signature": "A" * 86 + "=="})
    assert pull(node, simulated, keyring) == 1
    assert alarms() == [(AlarmKind.RECEIPT_CHANGED, first.receipt.id, 1)]


@pytest.mark.parametrize("piece", [1, 500])
def test_a_forged_receipt_is_evidence_and_no_part_of_its_chain(
    piece: int, node: Node, simulated: SimulatedNode, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    first = simulated.issue_receipt(ACME)
    forged = simulated.issue_receipt(ACME)
    simulated.journal[-1]["receipt"]["requests"] = 7
    third = simulated.issue_receipt(ACME, seq=2, prev=first.receipt.digest)
    assert pull(node, simulated, keyring) == 3
    assert list(ReceiptRecord.objects.values_list("verified", flat=True)) == [True, False, True]
    assert alarms() == [(AlarmKind.BAD_SIGNATURE, forged.receipt.id, 1)]
    assert stored()[2] == third


@pytest.mark.parametrize("piece", [1, 500])
def test_a_gap_is_one_alarm_and_the_highest_number_stays_the_head(
    piece: int, node: Node, simulated: SimulatedNode, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    for _ in range(4):
        simulated.issue_receipt(ACME)
    first, second, third, fourth = simulated.journal
    simulated.journal = [first, third, second, fourth]
    assert pull(node, simulated, keyring) == 4
    late = sorted(row["receipt"]["id"] for row in (third, second))
    assert alarms() == [(AlarmKind.CHAIN_GAP, id_, 1) for id_ in late]


def test_a_client_has_a_chain_of_its_own_on_each_node(
    node: Node, simulated: SimulatedNode, keyring: Keyring, keys: ReconcilerKeys
) -> None:
    simulated.issue_receipt(ACME)
    other = SimulatedNode("node-b", public_text(keys.bundle))
    other.issue_receipt(ACME)
    certified = NodeKey(node="node-b", public_key=public_text(other.receipt_key))
    row = stored_node("node-b", 78)
    assert pull(node, simulated, keyring) == 1
    assert pull(row, other, make_keyring((certified,), keys.log)) == 1
    assert alarms() == []


def test_what_is_no_receipt_stops_none_of_its_piece(
    node: Node, simulated: SimulatedNode, keyring: Keyring
) -> None:
    first = simulated.issue_receipt(ACME)
    simulated.journal.append({"prompt": "not a receipt"})
    assert pull(node, simulated, keyring) == 1
    assert stored() == [first]
    assert alarms() == [(AlarmKind.BAD_SCHEMA, "2", 1)]


def test_a_piece_is_stored_whole_with_its_position_or_not_at_all(
    node: Node, simulated: SimulatedNode, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.issue_receipt(ACME)
    simulated.journal.append({"prompt": "not a receipt"})

    class Stopped(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(module, "_move", stop)
        with pytest.raises(Stopped):
            pull(node, simulated, keyring)
    assert (stored(), alarms(), Node.objects.get().receipts_position) == ([], [], 0)
    assert pull(node, simulated, keyring) == 1  # positive control: the same piece without the stop
    assert len(alarms()) == 1


def test_keys_that_control_did_not_certify_admit_nothing(
    node: Node, simulated: SimulatedNode, keyring: Keyring
) -> None:
    simulated.issue_receipt(ACME)
    with pytest.raises(ReceiptError, match=r"keyring\.signature"):
        pull(node, simulated, keyring.model_copy(update={"signature": "A" * 86 + "=="}))
    assert (stored(), alarms()) == ([], [])
    assert pull(node, simulated, keyring) == 1


def test_a_piece_costs_as_many_queries_as_a_receipt(
    node: Node, simulated: SimulatedNode, keyring: Keyring
) -> None:
    def queries(count: int) -> int:
        for number in range(count):
            simulated.issue_receipt(f"{number:064x}")
        with CaptureQueriesContext(connection) as captured:
            assert pull(node, simulated, keyring) == count
        return len(captured)

    assert queries(40) == queries(1)


def test_the_log_takes_the_bytes_that_clients_hold(
    node: Node, simulated: SimulatedNode, keyring: Keyring, keys: ReconcilerKeys
) -> None:
    import shutil

    from appliance.transparency.checkpoint import Policy
    from control.transparency.proofs import prove

    shutil.rmtree(settings.PATHS.log, ignore_errors=True)
    issued = [simulated.issue_receipt(client) for client in (ACME, BOLT, ACME)]
    simulated.journal[1]["receipt"]["requests"] = (
        7  # forged: no place, and a hole among the rows that get one
    )
    pull(node, simulated, keyring)
    assert Keeper(settings.PATHS.log, keys.checkpoints).keep() == 2
    assert list(ReceiptRecord.objects.values_list("place", flat=True)) == [0, None, 1]
    policy = Policy(*keys.checkpoints.verifier_keys)
    for place, signed in enumerate((issued[0], issued[2])):
        file = json.dumps(entry(signed), sort_keys=True, separators=(",", ":")).encode()
        prove(ReceiptRecord.objects.get(place=place), settings.PATHS.log).verify(file, policy)

"""Old receipts are deleted as control.json says: chains, the log and what clients hold go on verifying."""

from __future__ import annotations

from datetime import timedelta

import pytest
from control_cast import OverTls, stored_node
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient
from simulated_node import SimulatedNode

from appliance.core.receipt import Keyring, NodeKey, SignedReceipt, make_keyring
from appliance.core.signing import public_text
from appliance.transparency.checkpoint import Policy
from control.audit import retention as module
from control.audit.export import Format, write_receipts
from control.audit.models import Alarm, AlarmKind, DeletedError, ReceiptRecord
from control.audit.retention import Retention
from control.audit.services import admit_receipt
from control.reconciler.keys import ReconcilerKeys
from control.transparency import keeper
from control.transparency.keeper import Keeper
from control.transparency.proofs import prove

pytestmark = pytest.mark.django_db
LATER = timedelta(days=31)


class World:
    """A node whose receipts control has and logs."""

    def __init__(self, keys: ReconcilerKeys) -> None:
        self.node = SimulatedNode("node-a", public_text(keys.bundle))
        self.row = stored_node()
        certified = NodeKey(node="node-a", public_key=public_text(self.node.receipt_key))
        self.keyring: Keyring = make_keyring((certified,), keys.log)
        settings.PATHS.keyring.write_bytes(self.keyring.canonical_bytes())
        self.keeper = Keeper(settings.PATHS.log, keys.checkpoints)
        self.policy = Policy(*keys.checkpoints.verifier_keys)

    def serve(self, count: int) -> list[SignedReceipt]:
        made = [self.node.issue_receipt("ab"[n % 2] * 64) for n in range(count)]
        for signed in made:
            assert admit_receipt(self.row, signed, self.keyring)
        return made


@pytest.fixture
def world(db: None, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(keeper, "INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "BATCH", 3)
    return World(keys)


def test_old_receipts_go_and_everything_that_rests_on_them_stays(world: World) -> None:
    old = world.serve(7)
    world.keeper.keep()
    proofs = [prove(record, settings.PATHS.log) for record in ReceiptRecord.objects.all()]
    now = timezone.now() + LATER
    retention = Retention(30)
    assert retention.delete_old() == 0, "none is old yet"
    assert [retention.delete_old(now) for _ in range(4)] == [3, 3, 1, 0]
    for record, signed in zip(ReceiptRecord.objects.all(), old, strict=True):
        assert (record.deleted, record.digest, record.end) == (True, signed.receipt.digest, "one_shot")
        assert signed.receipt.session not in record.text
        with pytest.raises(DeletedError):
            record.signed()
    for proof, signed in zip(proofs, old, strict=True):
        proof.verify(signed.canonical_bytes(), world.policy)
    # The node hands them over again, and the chains go on: no alarm, and nothing comes back.
    for signed in old:
        assert not admit_receipt(world.row, signed, world.keyring)
    new = world.serve(4)
    world.keeper.keep()
    assert not Alarm.objects.exists()
    kept = list(ReceiptRecord.objects.order_by("pk"))
    assert [record.deleted for record in kept] == [True] * 7 + [False] * 4
    again = prove(kept[0], settings.PATHS.log)
    assert again.verify(old[0].canonical_bytes(), world.policy).size == 11
    exported = b"".join(write_receipts(ReceiptRecord.objects.all(), Format.JSONL)).splitlines()
    assert exported == [signed.canonical_bytes() for signed in new]


def test_another_receipt_under_the_id_of_a_deleted_one_is_still_an_alarm(world: World) -> None:
    (first, *_) = world.serve(2)
    world.keeper.keep()
    Retention(30).delete_old(timezone.now() + LATER)
    world.node.journal.clear()
    forged = world.node.issue_receipt("a" * 64, id=first.receipt.id, requests=9)
    assert not admit_receipt(world.row, forged, world.keyring)
    assert Alarm.objects.get().kind == AlarmKind.RECEIPT_CHANGED


def test_what_is_not_logged_is_kept(world: World) -> None:
    world.serve(2)
    assert Retention(30).delete_old(timezone.now() + LATER) == 2
    assert not any(record.deleted for record in ReceiptRecord.objects.all())
    assert Retention(None).delete_old(timezone.now() + LATER) == 0


def test_the_console_and_the_api_say_that_it_was_deleted(world: World, operator: User) -> None:
    world.serve(1)
    world.keeper.keep()
    Retention(30).delete_old(timezone.now() + LATER)
    record = ReceiptRecord.objects.get()
    api = APIClient()
    api.force_authenticate(operator)
    refused = api.get(f"/api/v1/receipts/{record.pk}/signed", secure=True)
    assert refused.status_code == 400
    assert "deleted" in refused.content.decode()
    browser = OverTls()
    browser.force_login(User.objects.create_superuser("root"))
    page = browser.get(f"/admin/audit/receiptrecord/{record.pk}/change/")
    assert page.status_code == 200
    assert "is 1 in the log" in page.content.decode()

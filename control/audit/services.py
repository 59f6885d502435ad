"""The verbs of the audit: admit receipts, raise alarms."""

from __future__ import annotations

import logging

from django.db import transaction
from django.db.models import F

from appliance.core.errors import ReceiptError
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import Keyring, SignedReceipt, verify_receipt
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.fleet.models import Node
from control.logs import log_event

logger = logging.getLogger(__name__)


def raise_alarm(node: Node, kind: AlarmKind, subject: str) -> None:
    """Record an alarm; the same one again only counts."""
    with transaction.atomic():
        alarm, created = Alarm.objects.get_or_create(node=node, kind=kind, subject=subject)
        if not created:
            Alarm.objects.filter(pk=alarm.pk).update(count=F("count") + 1)
    log_event(logger, logging.ERROR, kind.value, node=node.pk)


def admit_receipt(node: Node, signed: SignedReceipt, keyring: Keyring) -> bool:
    """Store a receipt exactly once; return whether it is new.

    1. The same id with the same bytes is a repetition; with other bytes it is an alarm and the first one stays.
    2. The signature is checked against the node's certified key.
    3. Within a client's receipts on this node, `seq` and `prev` must follow the last verified one.
    """
    receipt = signed.receipt
    with transaction.atomic():
        known = ReceiptRecord.objects.filter(node=node, receipt_id=receipt.id).first()
        if known is not None:
            if (known.digest, known.signature) != (receipt.digest, signed.signature):
                raise_alarm(node, AlarmKind.RECEIPT_CHANGED, receipt.id)
            return False
        verified = _verifies(node, signed, keyring)
        if not verified:
            raise_alarm(node, AlarmKind.BAD_SIGNATURE, receipt.id)
        elif not _follows(node, signed):
            raise_alarm(node, AlarmKind.CHAIN_GAP, receipt.id)
        ReceiptRecord.objects.create(
            node=node,
            boot=receipt.boot,
            receipt_id=receipt.id,
            client=receipt.client,
            seq=receipt.seq,
            text=receipt.canonical_bytes().decode("utf-8"),
            digest=receipt.digest,
            key=signed.key,
            signature=signed.signature,
            verified=verified,
        )
    return True


def _verifies(node: Node, signed: SignedReceipt, keyring: Keyring) -> bool:
    if signed.receipt.node != node.name:
        return False
    try:
        verify_receipt(signed, keyring)
    except ReceiptError:
        return False
    return True


def _follows(node: Node, signed: SignedReceipt) -> bool:
    receipt = signed.receipt
    chain = ReceiptRecord.objects.filter(node=node, client=receipt.client, verified=True)
    last = chain.order_by("-seq", "-id").first()
    if last is None:
        return receipt.seq == 1 and receipt.prev == ZERO_DIGEST
    return receipt.seq == last.seq + 1 and receipt.prev == last.digest

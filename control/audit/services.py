"""The verbs of the audit: admit receipts, raise alarms."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from appliance.core.errors import ReceiptError
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import CertifiedKeys, Keyring, SignedReceipt, certify
from control.audit.models import DELETED, Alarm, AlarmKind, ReceiptRecord
from control.fleet.models import Node
from control.logs import log_event

logger = logging.getLogger(__name__)

# One look into the index for each client, however many receipts it has: a maximum by groups would read all of them.
_HEADS: Final = """
    SELECT asked.column1, head.seq, head.digest FROM (VALUES {clients}) AS asked JOIN audit_receiptrecord AS head ON head.id = (
        SELECT id FROM audit_receiptrecord WHERE node_id = %s AND client = asked.column1 AND verified
        ORDER BY seq DESC, id DESC LIMIT 1
    )
"""
_STORE: Final = """
    INSERT INTO audit_receiptrecord
        (node_id, boot, receipt_id, client, seq, text, digest, key, signature, verified, admitted_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True)
class Arrival:
    """A receipt as a node handed it over, with what is computed of it once.

    Attributes:
        content: Its canonical bytes.
        digest: SHA-256 of them.
        verified: The signature is that of the node's certified key.
    """

    signed: SignedReceipt
    content: bytes
    digest: str
    verified: bool

    @property
    def identity(self) -> tuple[str, str]:
        """What is equal when a receipt comes again."""
        return self.digest, self.signed.signature


@dataclass(frozen=True)
class _Head:
    """A client's last verified receipt on a node."""

    seq: int = 0
    digest: str = ZERO_DIGEST


def raise_alarm(node: Node, kind: AlarmKind, subject: str) -> bool:
    """Record an alarm; the same one again only counts. Return whether it is new."""
    with transaction.atomic():
        alarm, created = Alarm.objects.get_or_create(node=node, kind=kind, subject=subject)
        if not created:
            Alarm.objects.filter(pk=alarm.pk).update(count=F("count") + 1)
    log_event(logger, logging.ERROR, kind.value, node=node.pk)
    return created


def admit_receipt(node: Node, signed: SignedReceipt, keyring: Keyring) -> bool:
    """Store one receipt exactly once, as `admit_receipts`; return whether it is new.

    Raises:
        ReceiptError: If the keyring's own log key did not sign it.
    """
    return admit_receipts(node, [verify_arrival(node, signed, certify(keyring))]) == 1


def verify_arrival(node: Node, signed: SignedReceipt, keys: CertifiedKeys) -> Arrival:
    """Look at a receipt without the database: most of the work, and it needs no lock."""
    receipt = signed.receipt
    content = receipt.canonical_bytes()
    verified = receipt.node == node.name
    try:
        keys.verify(node=receipt.node, key=signed.key, content=content, signature=signed.signature)
    except ReceiptError:
        verified = False
    return Arrival(signed, content, hashlib.sha256(content).hexdigest(), verified)


def admit_receipts(node: Node, arrivals: Sequence[Arrival]) -> int:
    """Store receipts exactly once, in the order in which they came; return how many are new. All are stored or none.

    1. The same id with the same bytes is a repetition; with other bytes it is an alarm and the first one stays.
    2. One that did not verify is kept as evidence, with an alarm.
    3. Within a client's receipts on this node, `seq` and `prev` must follow the last verified one.
    """
    # No savepoint within the caller's transaction: SQLite would keep a copy of every page that changes.
    with transaction.atomic(savepoint=False):
        known = _observe_known(node, arrivals)
        heads = _observe_heads(node, {arrival.signed.receipt.client for arrival in arrivals})
        fresh = []
        for arrival in arrivals:
            receipt = arrival.signed.receipt
            if receipt.id not in known:
                known[receipt.id] = arrival.identity
                _judge(node, arrival, heads)
                fresh.append(arrival)
            elif not _same(known[receipt.id], arrival):
                raise_alarm(node, AlarmKind.RECEIPT_CHANGED, receipt.id)
        _store(node, fresh)
    return len(fresh)


def _same(known: tuple[str, str], arrival: Arrival) -> bool:
    """Whether a receipt is the one that is known; of one that was deleted the digest is left."""
    digest, signature = known
    return known == arrival.identity or (signature == DELETED and digest == arrival.digest)


def _judge(node: Node, arrival: Arrival, heads: dict[str, _Head]) -> None:
    """Raise the alarm over a new receipt that does not verify or follow; one that verifies may be the next head."""
    receipt = arrival.signed.receipt
    if not arrival.verified:
        raise_alarm(node, AlarmKind.BAD_SIGNATURE, receipt.id)
        return
    head = heads.get(receipt.client, _Head())
    if (receipt.seq, receipt.prev) != (head.seq + 1, head.digest):
        raise_alarm(node, AlarmKind.CHAIN_GAP, receipt.id)
    if receipt.seq >= head.seq:
        heads[receipt.client] = _Head(receipt.seq, arrival.digest)


def _store(node: Node, arrivals: Iterable[Arrival]) -> None:
    """Insert receipts. By hand: for each row the ORM takes as long as all of the database's own work for four."""
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    rows = [
        (
            node.pk,
            arrival.signed.receipt.boot,
            arrival.signed.receipt.id,
            arrival.signed.receipt.client,
            arrival.signed.receipt.seq,
            arrival.content.decode("utf-8"),
            arrival.digest,
            arrival.signed.key,
            arrival.signed.signature,
            arrival.verified,
            now,
        )
        for arrival in arrivals
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_STORE, rows)


def _observe_known(node: Node, arrivals: Iterable[Arrival]) -> dict[str, tuple[str, str]]:
    """Return digest and signature of those receipts that are stored, by id."""
    ids = [arrival.signed.receipt.id for arrival in arrivals]
    # Without order: asked for rows in the order of their keys, SQLite reads every row of the node.
    stored = ReceiptRecord.objects.filter(node=node, receipt_id__in=ids).order_by()
    rows = stored.values_list("receipt_id", "digest", "signature")
    return {receipt: (digest, signature) for receipt, digest, signature in rows}


def _observe_heads(node: Node, clients: Collection[str]) -> dict[str, _Head]:
    """Return the last verified receipt of each client that has one on this node: of the highest `seq`."""
    if not clients:
        return {}
    values = ", ".join(["(%s)"] * len(clients))
    with connection.cursor() as cursor:
        cursor.execute(_HEADS.format(clients=values), [*clients, node.pk])
        return {client: _Head(seq, digest) for client, seq, digest in cursor.fetchall()}

"""The verbs of the audit: admit receipts, raise alarms."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import Keyring, SignedReceipt, certify
from control.audit.arrivals import Arrival, look_at
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
    VALUES {rows}
"""
_ROWS: Final = 500  # in one statement; SQLite takes 32,766 values in one, PostgreSQL 65,535
_ROW: Final = "(" + ", ".join(["%s"] * 11) + ")"


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
    return admit_receipts(node, [look_at(signed, node.name, certify(keyring))]) == 1


def admit_receipts(node: Node, arrivals: Sequence[Arrival]) -> int:
    """Store receipts exactly once, in the order in which they came; return how many are new. All are stored or none.

    1. The same id with the same bytes is a repetition; with other bytes it is an alarm and the first one stays.
    2. One that did not verify is kept as evidence, with an alarm.
    3. Within a client's receipts on this node, `seq` and `prev` must follow the last verified one.
    """
    # No savepoint within the caller's transaction: SQLite would keep a copy of every page that changes.
    with transaction.atomic(savepoint=False):
        known = _observe_known(node, arrivals)
        heads = _observe_heads(node, {arrival.client for arrival in arrivals})
        fresh = []
        for arrival in arrivals:
            if arrival.id not in known:
                known[arrival.id] = arrival.identity
                _judge(node, arrival, heads)
                fresh.append(arrival)
            elif not _same(known[arrival.id], arrival):
                raise_alarm(node, AlarmKind.RECEIPT_CHANGED, arrival.id)
        _store(node, fresh)
    return len(fresh)


def _same(known: tuple[str, str], arrival: Arrival) -> bool:
    """Whether a receipt is the one that is known; of one that was deleted the digest is left."""
    digest, signature = known
    return known == arrival.identity or (signature == DELETED and digest == arrival.digest)


def _judge(node: Node, arrival: Arrival, heads: dict[str, _Head]) -> None:
    """Raise the alarm over a new receipt that does not verify or follow; one that verifies may be the next head."""
    if not arrival.verified:
        raise_alarm(node, AlarmKind.BAD_SIGNATURE, arrival.id)
        return
    head = heads.get(arrival.client, _Head())
    if (arrival.seq, arrival.prev) != (head.seq + 1, head.digest):
        raise_alarm(node, AlarmKind.CHAIN_GAP, arrival.id)
    if arrival.seq >= head.seq:
        heads[arrival.client] = _Head(arrival.seq, arrival.digest)


def _store(node: Node, arrivals: Sequence[Arrival]) -> None:
    """Insert receipts. By hand: for each row the ORM takes as long as all of the database's own work for four.

    All rows in one statement: SQLite lets go of the interpreter once for each, and waits for it as often.
    """
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        for first in range(0, len(arrivals), _ROWS):
            some = arrivals[first : first + _ROWS]
            values = [value for arrival in some for value in _row(node, arrival, now)]
            cursor.execute(_STORE.format(rows=", ".join([_ROW] * len(some))), values)


def _row(node: Node, arrival: Arrival, now: str | datetime | None) -> tuple[int | str | datetime | None, ...]:
    return (
        node.pk,
        arrival.boot,
        arrival.id,
        arrival.client,
        arrival.seq,
        arrival.content,
        arrival.digest,
        arrival.key,
        arrival.signature,
        arrival.verified,
        now,
    )


def _observe_known(node: Node, arrivals: Iterable[Arrival]) -> dict[str, tuple[str, str]]:
    """Return digest and signature of those receipts that are stored, by id."""
    ids = [arrival.id for arrival in arrivals]
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

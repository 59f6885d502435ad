"""Pulls receipts from a node and admits each exactly once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from appliance.core import canonical
from appliance.core.errors import RefusedError
from appliance.core.heartbeat import Heartbeat, extend_past
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import CertifiedKeys, Keyring, SignedReceipt, certify
from control.audit.models import AlarmKind, ReceiptRecord
from control.audit.services import Arrival, admit_receipts, raise_alarm, verify_arrival
from control.fleet.models import Node
from provisioning.answers import Receipts
from provisioning.node import NodeClient

PIECE = 500  # entries per request and per transaction: one fsync for all of them, and no long lock


@dataclass
class _Piece:
    """Entries of a node's journal, looked at one by one.

    Attributes:
        arrivals: The receipts.
        damaged: Positions of what is none.
        missing: Receipts are missing in front of it.
        past: Digest over the journal up to its end; empty where that is not known.
        replaced: The heartbeat has another digest over the same receipts.
    """

    arrivals: list[Arrival] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    missing: bool = False
    past: str = ""
    replaced: bool = False


def pull_receipts(
    node: Node, client: NodeClient, keyring: Keyring, heartbeat: Heartbeat | None = None
) -> int:
    """Admit everything after the stored position; return how many receipts were new.

    The position moves in the transaction that stores the receipts: a crash repeats a piece, and a repetition is
    recognised by its id. A journal that became shorter is an alarm, and is read from its start again.

    Args:
        node: The node.
        client: Speaks to it.
        keyring: Certifies its key.
        heartbeat: What the node said of its journal before. Its digest is compared with what is handed over now and was before.

    Raises:
        ReceiptError: If the keyring's own log key did not sign it.
        RefusedError: If the node's answer is not what the protocol says.
        UnavailableError: If the node does not answer.
    """
    keys = certify(keyring)
    if heartbeat is not None and heartbeat.receipts == node.receipts_position:
        _compare(node, heartbeat)
    new = 0
    while True:
        answer = client.receipts(node.receipts_position, PIECE)
        if answer.next < node.receipts_position:
            raise_alarm(node, AlarmKind.JOURNAL_SHRUNK, str(node.receipts_position))
            _move(node, 0, ZERO_DIGEST)
            return new
        if not answer.entries:
            return new
        if answer.next == node.receipts_position:
            raise RefusedError("the node's journal does not advance", field="next")
        piece = _read(node, answer, keys, heartbeat)
        with transaction.atomic():
            _raise_alarms(node, piece)
            new += admit_receipts(node, piece.arrivals)
            _move(node, answer.next, piece.past)
            if piece.replaced and heartbeat is not None:
                _note_replaced(node, heartbeat)


def _compare(node: Node, heartbeat: Heartbeat) -> None:
    """Hold the digest over a journal that was read to its end against the one that control computed of it."""
    if node.receipts_past in ("", heartbeat.past):
        _move(node, node.receipts_position, heartbeat.past)
    else:
        _note_replaced(node, heartbeat)


def _note_replaced(node: Node, heartbeat: Heartbeat) -> None:
    """Raise the alarm; the first time, read the journal again, so that what is in it now is kept as evidence."""
    if raise_alarm(node, AlarmKind.JOURNAL_REPLACED, str(heartbeat.receipts)):
        _move(node, 0, ZERO_DIGEST)
    else:
        here = node.receipts_position == heartbeat.receipts
        _move(node, node.receipts_position, heartbeat.past if here else "")


def _read(node: Node, answer: Receipts, keys: CertifiedKeys, heartbeat: Heartbeat | None) -> _Piece:
    expected = node.receipts_position + 1
    piece = _Piece(past=node.receipts_past, missing=answer.entries[0].position != expected)
    if piece.missing:
        piece.past = ""
    for entry in answer.entries:
        digest = ""
        try:
            signed = SignedReceipt.parse(entry.signed)
        except RefusedError:
            piece.damaged.append(entry.position)
            digest = _digest_of(entry.signed)
        else:
            piece.arrivals.append(verify_arrival(node, signed, keys))
            digest = piece.arrivals[-1].digest
        if piece.past:
            piece.past = extend_past(piece.past, digest)
        if heartbeat is not None and entry.position == heartbeat.receipts:
            piece.replaced = piece.past not in ("", heartbeat.past)
            piece.past = piece.past or heartbeat.past
    return piece


def _raise_alarms(node: Node, piece: _Piece) -> None:
    for position in piece.damaged:
        raise_alarm(node, AlarmKind.BAD_SCHEMA, str(position))
    if piece.missing and not _is_read_again(node):
        raise_alarm(node, AlarmKind.RECEIPTS_MISSING, str(node.receipts_position))


def _is_read_again(node: Node) -> bool:
    """Whether a journal is read from its start once more: then it may begin later, since a node may drop what control has."""
    return node.receipts_position == 0 and ReceiptRecord.objects.filter(node=node).exists()


def _digest_of(signed: Any) -> str:
    """Return the digest of what came in the place of a receipt, as the notary computed it."""
    try:
        return hashlib.sha256(canonical.encode(signed["receipt"])).hexdigest()
    except (RefusedError, ValueError, KeyError, TypeError):
        return ZERO_DIGEST


def _move(node: Node, position: int, past: str) -> None:
    Node.objects.filter(pk=node.pk).update(receipts_position=position, receipts_past=past)
    node.receipts_position, node.receipts_past = position, past

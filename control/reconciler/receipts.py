"""Pulls receipts from a node and admits each exactly once."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from appliance.core.errors import RefusedError
from appliance.core.receipt import CertifiedKeys, Keyring, SignedReceipt, certify
from control.audit.models import AlarmKind
from control.audit.services import Arrival, admit_receipts, raise_alarm, verify_arrival
from control.fleet.models import Node
from provisioning.answers import Entry
from provisioning.node import NodeClient

PIECE = 500  # entries per request and per transaction: one fsync for all of them, and no long lock


def pull_receipts(node: Node, client: NodeClient, keyring: Keyring) -> int:
    """Admit everything after the stored position; return how many receipts were new.

    The position moves in the transaction that stores the receipts: a crash repeats a piece, and a repetition is
    recognised by its id. A journal that became shorter is an alarm, and is read from its start again.

    Raises:
        ReceiptError: If the keyring's own log key did not sign it.
        RefusedError: If the node's answer is not what the protocol says.
        UnavailableError: If the node does not answer.
    """
    keys = certify(keyring)
    new = 0
    while True:
        piece = client.receipts(node.receipts_position, PIECE)
        if piece.next < node.receipts_position:
            raise_alarm(node, AlarmKind.JOURNAL_SHRUNK, str(node.receipts_position))
            _move(node, 0)
            return new
        if not piece.entries:
            return new
        if piece.next == node.receipts_position:
            raise RefusedError("the node's journal does not advance", field="next")
        arrivals, damaged = _read(node, piece.entries, keys)
        with transaction.atomic():
            for position in damaged:
                raise_alarm(node, AlarmKind.BAD_SCHEMA, str(position))
            new += admit_receipts(node, arrivals)
            _move(node, piece.next)


def _read(node: Node, entries: Iterable[Entry], keys: CertifiedKeys) -> tuple[list[Arrival], list[int]]:
    """Return the receipts of a piece, looked at one by one, and the positions of what is none."""
    arrivals, damaged = [], []
    for entry in entries:
        try:
            signed = SignedReceipt.parse(entry.signed)
        except RefusedError:
            damaged.append(entry.position)
        else:
            arrivals.append(verify_arrival(node, signed, keys))
    return arrivals, damaged


def _move(node: Node, position: int) -> None:
    Node.objects.filter(pk=node.pk).update(receipts_position=position)
    node.receipts_position = position

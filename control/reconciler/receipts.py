"""Pulls receipts from a node and admits each exactly once."""

from __future__ import annotations

from django.db import transaction

from appliance.core.errors import RefusedError
from appliance.core.receipt import Keyring, SignedReceipt
from control.audit.models import AlarmKind
from control.audit.services import admit_receipt, raise_alarm
from control.fleet.models import Node
from provisioning.node import NodeClient

PIECE = 200  # entries per request and per transaction: one fsync for all of them, and no long lock


def pull_receipts(node: Node, client: NodeClient, keyring: Keyring) -> int:
    """Admit everything after the stored position; return how many receipts were new.

    The position moves in the transaction that stores the receipts: a crash repeats a piece, and a repetition is
    recognised by its id. A journal that became shorter is an alarm, and is read from its start again.
    """
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
        with transaction.atomic():
            new += sum(_admit_entry(node, entry.position, entry.signed, keyring) for entry in piece.entries)
            _move(node, piece.next)


def _admit_entry(node: Node, position: int, signed: object, keyring: Keyring) -> bool:
    try:
        receipt = SignedReceipt.parse(signed)
    except RefusedError:
        raise_alarm(node, AlarmKind.BAD_SCHEMA, str(position))
        return False
    return admit_receipt(node, receipt, keyring)


def _move(node: Node, position: int) -> None:
    Node.objects.filter(pk=node.pk).update(receipts_position=position)
    node.receipts_position = position

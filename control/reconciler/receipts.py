"""Pulls receipts from a node and admits each exactly once.

While the database makes one piece of a node's journal durable, a thread asks the node for the next and has its signatures verified: where
there is a whole piece of them, so that there may be many to catch up with, in a second process (`verifier`).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from django.db import transaction

from appliance.core.errors import RefusedError
from appliance.core.heartbeat import Heartbeat, extend_past
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import CertifiedKeys, Keyring, certify
from control.audit.arrivals import Arrival, Damaged, look_at_all
from control.audit.models import AlarmKind, ReceiptRecord
from control.audit.services import admit_receipts, raise_alarm
from control.fleet.models import Node
from control.reconciler.verifier import look_aside
from provisioning.node import NodeClient

PIECE = 500  # entries per request and per transaction: one fsync for all of them, and no long lock


@dataclass(frozen=True)
class _Page:
    """What a node answered.

    Attributes:
        seen: Positions, and what lies there.
        next: The position after the last one.
    """

    seen: tuple[tuple[int, Arrival | Damaged], ...]
    next: int


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


class _Reader(AbstractContextManager["_Reader"]):
    """Reads a node's journal, one page ahead once the next is known."""

    def __init__(self, node: Node, client: NodeClient, keys: CertifiedKeys) -> None:
        self._name = node.name
        self._client = client
        self._keys = keys
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._ahead: dict[int, Future[_Page]] = {}  # by position; one at most

    def read(self, after: int) -> _Page:
        """Return the page after a position. Raises what the node's client raises."""
        if after not in self._ahead:
            self.read_ahead(after)
        return self._ahead.pop(after).result()

    def read_ahead(self, after: int) -> None:
        """Begin to read the page after a position."""
        self._ahead = {after: self._thread.submit(self._fetch, after)}

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _fetch(self, after: int) -> _Page:
        answer = self._client.receipts(after, PIECE)
        look = look_at_all if len(answer.entries) < PIECE else look_aside
        seen = look([entry.signed for entry in answer.entries], self._name, self._keys)
        return _Page(tuple(zip([entry.position for entry in answer.entries], seen, strict=True)), answer.next)


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
    with _Reader(node, client, keys) as reader:
        return _admit_all(node, reader, heartbeat)


def _admit_all(node: Node, reader: _Reader, heartbeat: Heartbeat | None) -> int:
    new = 0
    while True:
        page = reader.read(node.receipts_position)
        if page.next < node.receipts_position:
            raise_alarm(node, AlarmKind.JOURNAL_SHRUNK, str(node.receipts_position))
            _move(node, 0, ZERO_DIGEST)
            return new
        if not page.seen:
            return new
        if page.next == node.receipts_position:
            raise RefusedError("the node's journal does not advance", field="next")
        reader.read_ahead(page.next)
        piece = _follow(node, page, heartbeat)
        with transaction.atomic():
            _raise_alarms(node, piece)
            new += admit_receipts(node, piece.arrivals)
            _move(node, page.next, piece.past)
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


def _follow(node: Node, page: _Page, heartbeat: Heartbeat | None) -> _Piece:
    """Follow the journal's digest through a page and sort what is in it."""
    expected = node.receipts_position + 1
    piece = _Piece(past=node.receipts_past, missing=page.seen[0][0] != expected)
    if piece.missing:
        piece.past = ""
    for position, seen in page.seen:
        if isinstance(seen, Damaged):
            piece.damaged.append(position)
        else:
            piece.arrivals.append(seen)
        if piece.past:
            piece.past = extend_past(piece.past, seen.digest)
        if heartbeat is not None and position == heartbeat.receipts:
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


def _move(node: Node, position: int, past: str) -> None:
    Node.objects.filter(pk=node.pk).update(receipts_position=position, receipts_past=past)
    node.receipts_position, node.receipts_past = position, past

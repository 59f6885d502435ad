"""Gives verified receipts and the events of the journal their places in the log and signs its heads. One keeper runs, in the reconciler.

The order makes every stop harmless: hashes are durable as files before a checkpoint is signed over them, and places and checkpoint
are committed together. What was written and not committed is written again, maybe otherwise; nobody has seen a signature over it.

The last checkpoint is a file of the log as well (c2sp.org/tlog-tiles). A database that is older than it was restored from a backup: to go
on from there would sign a fork, so the keeper stops and says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from django.db import transaction
from django.db.models import F, QuerySet

from appliance.core.errors import HostError
from appliance.transparency import merkle
from appliance.transparency.checkpoint import Checkpoint, LogSigner
from appliance.transparency.merkle import leaf_hash
from appliance.transparency.note import Note
from appliance.transparency.tiles import Tiles, read_checkpoint
from control.audit.models import ReceiptRecord
from control.backup.manifest import Restored
from control.backup.models import UnclaimedPlace
from control.backup.restored import verify_compared
from control.journal.models import AuditEvent, EventPlace
from control.logs import log_event
from control.transparency.models import CheckpointRecord

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0  # between two checkpoints, if there is anything new
FULL: Final = 1000  # waiting receipts that make a checkpoint due, whenever the last one was
MOST: Final = (
    5000  # that one checkpoint adds: what came while control was off is many of them, a second apart
)


class Keeper:
    """The one writer of the log.

    Args:
        folder: Of the tiles.
        signer: The log's keys.
        witnessed: Heads are settled by `Witnesses`.
        restored: What a restore left; until the log was compared no head is signed.
    """

    def __init__(
        self,
        folder: Path,
        signer: LogSigner,
        *,
        witnessed: bool = False,
        restored: Restored | None = None,
    ) -> None:
        self._folder = folder
        self._signer = signer
        self._witnessed = witnessed
        self._restored = restored
        self._tiles: Tiles | None = None
        self._is_renewed = False
        self._signed_at = -INTERVAL_S
        # A clock of its own: what an operator did just now must not make the next receipt wait a minute.
        self._events_signed_at = -INTERVAL_S

    def keep(self) -> int:
        """Sign a checkpoint if one is due; return how many entries it added.

        Raises:
            HostError: If the tiles cannot be read or written, or are not those of the last checkpoint.
            RestoredError: If control was restored, and the log was not compared since.
        """
        if not self._is_renewed:
            verify_compared(self._restored)
            self._renew()
            self._is_renewed = True
        if not self._is_due():
            return 0
        receipts = list(waiting()[:MOST].values_list("pk", "key", "text", "signature"))
        events = list(waiting_events()[:MOST].values_list("number", "text"))
        if self._restored is not None:
            receipts, events = claim_places(receipts), claim_event_places(events)
        try:
            if receipts or events:
                self._add(receipts, events)
        except BaseException:
            self._tiles = None  # it may hold what was not committed
            raise
        now = time.monotonic()
        self._signed_at = now if receipts else self._signed_at
        self._events_signed_at = now if events else self._events_signed_at
        log_event(logger, logging.INFO, "checkpoint_signed", receipts=len(receipts), events=len(events))
        return len(receipts) + len(events)

    def _is_due(self) -> bool:
        now = time.monotonic()
        due = now - self._signed_at >= INTERVAL_S
        if waiting()[:FULL].count() >= (1 if due else FULL):
            return True
        return now - self._events_signed_at >= INTERVAL_S and waiting_events().exists()

    def _add(self, receipts: Sequence[tuple[int, str, str, str]], events: Sequence[tuple[int, str]]) -> None:
        tiles = self._tiles = self._tiles or self._open()
        first = tiles.size
        tiles.append(leaf_hash(_entry(*signed)) for _, *signed in receipts)
        tiles.append(leaf_hash(text.encode("utf-8")) for _, text in events)
        tiles.publish()
        root = merkle.root(tiles, tiles.size)
        note = self._signer.sign(tiles.size, root, int(time.time()))
        with transaction.atomic():
            _place([pk for pk, *_ in receipts], first)
            _place_events([number for number, _ in events], first + len(receipts))
            CheckpointRecord.objects.create(
                size=tiles.size, note=note.render().decode("utf-8"), settled=not self._witnessed
            )
        self._show(tiles, note)

    def _renew(self) -> None:
        """Sign the last head again if it is not signed with the keys that there are now: they were rotated."""
        last = CheckpointRecord.objects.last()
        if last is None:
            return
        signed = Note.parse(last.note.encode("utf-8"))
        if all(any(made.by(key) for made in signed.signatures) for key in self._signer.verifier_keys):
            return
        tiles = self._tiles = self._open()
        note = self._signer.sign(tiles.size, merkle.root(tiles, tiles.size), int(time.time()))
        CheckpointRecord.objects.filter(pk=last.pk).update(
            note=note.render().decode("utf-8"), settled=not self._witnessed
        )
        self._show(tiles, note)
        log_event(logger, logging.INFO, "checkpoint_signed_again", receipts=tiles.size)

    def _show(self, tiles: Tiles, note: Note) -> None:
        """Write a head into the folder, which others may read; where there are witnesses, that waits until they were asked."""
        if not self._witnessed:
            tiles.write_checkpoint(note.render())

    def _open(self) -> Tiles:
        """Open the tree at the last checkpoint, and check that it is the tree that was signed."""
        last = CheckpointRecord.objects.last()
        size = 0 if last is None else last.size
        if (signed := read_checkpoint(self._folder)) and Checkpoint.parse(
            Note.parse(signed).text
        ).size > size:
            raise HostError(
                "ALARM: the log has signed more receipts than the database knows",
                hint="put back the whole state from one backup: appliance control backup restore",
            )
        if last is None:
            return Tiles(self._folder, 0)
        checkpoint = Checkpoint.parse(Note.parse(last.note.encode("utf-8")).text)
        if checkpoint.origin != self._signer.origin:
            raise HostError(
                "the log was signed with other keys", hint="restore keys/checkpoint*.key from a backup"
            )
        tiles = Tiles(self._folder, checkpoint.size)
        if merkle.root(tiles, checkpoint.size) != checkpoint.root:
            raise HostError(
                "ALARM: the log's tiles are not the tree that was signed", hint="restore log/ from a backup"
            )
        return tiles


def waiting() -> QuerySet[ReceiptRecord]:
    """Return the verified receipts without a place, in the order in which they came."""
    return ReceiptRecord.objects.filter(verified=True, place__isnull=True).order_by("pk")


def waiting_events() -> QuerySet[AuditEvent]:
    """Return the events without a place, in their order: all behind the last that has one."""
    last = EventPlace.objects.order_by("-event_id").values_list("event_id", flat=True).first() or 0
    return AuditEvent.objects.filter(number__gt=last).order_by("number")


def claim_places(receipts: Sequence[tuple[int, str, str, str]]) -> list[tuple[int, str, str, str]]:
    """Give receipts that were lost with a database, and are here again, the places that they had; return the others.

    Args:
        receipts: Row, and what their entries are made of.
    """
    if not UnclaimedPlace.objects.exists():
        return list(receipts)
    by_leaf = {leaf_hash(_entry(*signed)).hex(): pk for pk, *signed in receipts}
    with transaction.atomic():
        claimed = _claim(by_leaf)
        for pk, place in claimed.items():
            ReceiptRecord.objects.filter(pk=pk).update(place=place)
    return [receipt for receipt in receipts if receipt[0] not in claimed]


def claim_event_places(events: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Give events that were logged only after the backup was taken the places that they had; return the others.

    Those that came after the backup are lost with the database: their hashes stay in the log without them.

    Args:
        events: Number and text.
    """
    if not UnclaimedPlace.objects.exists():
        return list(events)
    by_leaf = {leaf_hash(text.encode("utf-8")).hex(): number for number, text in events}
    with transaction.atomic():
        claimed = _claim(by_leaf)
        EventPlace.objects.bulk_create(EventPlace(event_id=pk, place=place) for pk, place in claimed.items())
    return [event for event in events if event[0] not in claimed]


def _claim(by_leaf: Mapping[str, int]) -> dict[int, int]:
    """Return the lost places of rows by their keys, and forget that they are lost."""
    found = list(UnclaimedPlace.objects.filter(leaf__in=by_leaf))
    UnclaimedPlace.objects.filter(pk__in=[unclaimed.pk for unclaimed in found]).delete()
    return {by_leaf[unclaimed.leaf]: unclaimed.place for unclaimed in found}


def _entry(key: str, text: str, signature: str) -> bytes:
    """Return the canonical bytes of a signed receipt (receipt-v1 section 1) around those of the receipt, which are stored."""
    return f'{{"key":"{key}","receipt":{text},"signature":"{signature}"}}'.encode()


def _place(pks: Sequence[int], first: int) -> None:
    """Give receipts the places from `first` on. Rows with consecutive keys, nearly all, are one statement together."""
    for offset, run in groupby(enumerate(pks, start=first), key=lambda placed: placed[0] - placed[1]):
        (_, low), *rest = run
        high = rest[-1][1] if rest else low
        ReceiptRecord.objects.filter(pk__range=(low, high)).update(place=F("pk") + offset)


def _place_events(numbers: Sequence[int], first: int) -> None:
    """Give events the places from `first` on."""
    EventPlace.objects.bulk_create(
        EventPlace(event_id=number, place=place) for place, number in enumerate(numbers, start=first)
    )

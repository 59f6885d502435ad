"""Proofs from the log's files: that it holds a receipt, and that it continues an earlier size."""

from __future__ import annotations

from pathlib import Path

from appliance.core.errors import RefusedError
from appliance.transparency import merkle
from appliance.transparency.errors import NotLoggedError
from appliance.transparency.note import Note
from appliance.transparency.proof import Continuation, Proof
from appliance.transparency.tiles import TileReader, Tiles
from control.audit.models import ReceiptRecord
from control.transparency.models import CheckpointRecord


def prove(record: ReceiptRecord, folder: Path) -> Proof:
    """Return the proof of a receipt under the newest checkpoint.

    Raises:
        RefusedError: If its signature did not verify: the log never takes it.
        NotLoggedError: If it has no place yet.
        HostError: If a tile is missing or damaged.
    """
    if not record.verified:
        raise RefusedError("a receipt that does not verify is not logged", field="receipt")
    if record.place is None:
        raise NotLoggedError("the log does not hold this receipt", hint="ask again in a minute")
    return prove_place(record.place, folder)


def prove_place(place: int, folder: Path) -> Proof:
    """Return the proof of whatever has this place, under the newest checkpoint.

    Raises:
        NotLoggedError: If the head that holds it has not been shown yet.
        HostError: If a tile is missing or damaged.
    """
    note, tiles, size = _newest(folder)
    if place >= size:
        raise NotLoggedError("the head that holds it is being cosigned", hint="ask again in a minute")
    return Proof(place, tuple(merkle.inclusion_proof(tiles, place, size)), note)


def prove_continuation(old: int, folder: Path) -> Continuation:
    """Return the proof that the newest checkpoint continues the tree of an earlier size.

    Raises:
        NotLoggedError: If nothing was logged yet.
        ConsistencyError: If the log is smaller.
        HostError: If a tile is missing or damaged.
    """
    note, tiles, _ = _newest(folder)
    return continuation(old, tiles, note)


def continuation(old: int, tiles: TileReader, note: Note) -> Continuation:
    """Return the proof that a head continues the tree of an earlier size.

    Raises:
        ConsistencyError: If the log is smaller.
        HostError: If a tile is missing or damaged.
    """
    return Continuation(old, tuple(merkle.consistency_proof(tiles, old, tiles.size)), note)


def newest_checkpoint() -> Note:
    """Return the newest checkpoint.

    Raises:
        NotLoggedError: If nothing was logged yet.
    """
    return Note.parse(_newest_record().note.encode("utf-8"))


def _newest(folder: Path) -> tuple[Note, Tiles, int]:
    last = _newest_record()
    return Note.parse(last.note.encode("utf-8")), Tiles(folder, last.size), last.size


def _newest_record() -> CheckpointRecord:
    last = CheckpointRecord.settled_last()
    if last is None:
        raise NotLoggedError("the log is empty", hint="ask again in a minute")
    return last

"""Makes evidence of the journal: the events that the log holds, each with its proof under the newest head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from appliance.core.errors import RefusedError
from appliance.core.names import ZERO_DIGEST, encode_base64
from appliance.transparency import merkle
from appliance.transparency.errors import NotLoggedError
from appliance.transparency.proof import Proof
from appliance.transparency.tiles import Tiles
from control.journal.evidence import EvidenceHead, EvidenceLine
from control.journal.export import pieces
from control.journal.models import AuditEvent
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import prove_place


def prove_event(row: AuditEvent, folder: Path) -> Proof:
    """Return the proof of an event under the newest head.

    Raises:
        NotLoggedError: If the log does not hold it yet.
        HostError: If a tile is missing or damaged.
    """
    if row.place is None:
        raise NotLoggedError("the log does not hold this event", hint="ask again in a minute")
    return prove_place(row.place, folder)


def write_evidence(after: int, folder: Path) -> Iterator[bytes]:
    """Yield the file, a piece of events at a time: those behind a number that the newest head holds.

    Args:
        after: The number; 0: all.
        folder: Of the log.

    Raises:
        NotLoggedError: If the log is empty.
        RefusedError: If the journal or the log has not come so far.
        HostError: If a tile is missing or damaged.
    """
    last = CheckpointRecord.settled_last()
    if last is None:
        raise NotLoggedError("the log is empty", hint="ask again in a minute")
    logged = AuditEvent.objects.filter(logged__place__lt=last.size).order_by("-number").first()
    reached = logged.number if logged else 0
    if after > reached:
        raise RefusedError("the log holds no event of this number", field="after")
    yield _head(after, reached, last.note)
    tiles = Tiles(folder, last.size)
    rows = AuditEvent.objects.filter(number__gt=after, number__lte=reached).select_related("logged")
    for piece in pieces(rows):
        yield b"".join(_line(row, tiles) for row in piece)


def _head(after: int, reached: int, checkpoint: str) -> bytes:
    digest = AuditEvent.objects.filter(number=reached).values_list("digest", flat=True).first()
    head = EvidenceHead(
        after=after, checkpoint=checkpoint, events=reached - after, head=digest or ZERO_DIGEST
    )
    return head.canonical_bytes() + b"\n"


def _line(row: AuditEvent, tiles: Tiles) -> bytes:
    if row.place is None:  # the database lost it: events have their places in the order of their numbers
        raise RefusedError("an event has no place in the log", field=f"event {row.number}")
    hashes = merkle.inclusion_proof(tiles, row.place, tiles.size)
    line = EvidenceLine(event=row.event(), hashes=tuple(map(encode_base64, hashes)), place=row.place)
    return line.canonical_bytes() + b"\n"

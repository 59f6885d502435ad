"""Proofs for clients, from the log that control publishes on this node."""

from __future__ import annotations

from pathlib import Path

from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.errors import NotLoggedError
from appliance.transparency.merkle import inclusion_proof
from appliance.transparency.note import Note
from appliance.transparency.proof import Proof
from appliance.transparency.tiles import Tiles, read_checkpoint


def prove(log: Path, place: int | None) -> Proof:
    """Return the proof for a place in the log.

    Args:
        log: Folder of the published log.
        place: Of the receipt; None if control has not told it.

    Raises:
        NotLoggedError: If the place is not known, or the published log not large enough yet.
        HostError: If a tile cannot be read.
    """
    note = read_checkpoint(log)
    size = Checkpoint.parse(Note.parse(note).text).size if note else 0
    if place is None or place >= size:
        raise NotLoggedError("the log does not hold this receipt yet", hint="ask again in a minute")
    return Proof(place, tuple(inclusion_proof(Tiles(log, size), place, size)), Note.parse(note))

"""Seats: how many cells may run at once on a node. A seat is an flocked file, freed by the death of its holder.

Source: flock(2). A lock belongs to the open file description, so it works on a file opened for reading, and the kernel
lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def open_seats(folder: Path) -> list[int]:
    """Open every seat file for reading; the descriptors are the caller's. Raises OSError if the folder is missing."""
    names = sorted(os.listdir(folder))
    return [os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC) for name in names]


def take_seat(seats: list[int]) -> int | None:
    """Take the first free seat and close the others; None if all are taken.

    The descriptor that is returned is the seat: it stays open for as long as the process lives.
    """
    taken = None
    for seat in seats:
        if taken is None and _locked(seat):
            taken = seat
        else:
            os.close(seat)
    return taken


def _locked(seat: int) -> bool:
    try:
        fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

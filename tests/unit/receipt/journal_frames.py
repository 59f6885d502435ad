"""The frames of a notary's journal, to be taken out, changed and put back (docs/spec/receipt-v1.md section 6)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

_HEADER = struct.Struct("<II")  # length and CRC-32 of what follows


def journal_file(folder: Path) -> Path:
    """Return where the journal of a notary's folder lies."""
    return folder / "journal"


def payloads(folder: Path) -> list[bytes]:
    """Return what the frames hold, in order."""
    data, place, found = journal_file(folder).read_bytes(), 0, []
    while place < len(data):
        length, check = _HEADER.unpack_from(data, place)
        payload = data[place + _HEADER.size : place + _HEADER.size + length]
        assert zlib.crc32(payload) == check
        found.append(payload)
        place += _HEADER.size + length
    return found


def write(folder: Path, frames: Sequence[bytes]) -> None:
    """Replace the journal by one of these payloads, with lengths and checks as they should be."""
    data = b"".join(_HEADER.pack(len(one), zlib.crc32(one)) + one for one in frames)
    journal_file(folder).write_bytes(data)

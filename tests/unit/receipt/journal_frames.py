"""The frames of a notary's journal, to be taken out, changed and put back (docs/spec/receipt-v1.md section 6)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

_HEADER = struct.Struct(
    "<IIQ"
)  # length of the payload, CRC-32 of what follows, where the frame's group begins
_CHECKED = 8  # bytes in front of what the CRC covers


def journal_file(folder: Path) -> Path:
    """Return the one segment of a notary's folder."""
    (file,) = (folder / "journal").glob("*.frames")
    return file


def payloads(folder: Path) -> list[bytes]:
    """Return what the frames hold, in order."""
    data, place, found = journal_file(folder).read_bytes(), 0, []
    while place < len(data):
        length, check, _ = _HEADER.unpack_from(data, place)
        end = place + _HEADER.size + length
        assert zlib.crc32(data[place + _CHECKED : end]) == check
        found.append(data[place + _HEADER.size : end])
        place = end
    return found


def write(folder: Path, frames: Sequence[bytes]) -> None:
    """Replace the journal by these payloads, each a group of its own, with lengths and checks as they should be."""
    data = b""
    for payload in frames:
        group = struct.pack("<Q", len(data))
        data += struct.pack("<II", len(payload), zlib.crc32(group + payload)) + group + payload
    journal_file(folder).write_bytes(data)

"""A segment of the journal: an append-only file of frames, written in groups that share an fsync(2).

A frame is a length (u32), a CRC-32 of what follows (u32), the offset at which its group begins (u64) and a payload: text without
zero bytes. Integers are little-endian.

A group counts from the moment fsync has returned, and the next one is written after that. So on start only the last group can be torn:
shorter, or with zeros where sectors never reached the disk. A torn one is cut, since nobody was told that it was kept. Whatever else
fails its check was changed later, and is never repaired: the notary stops and a person looks.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from appliance.core.errors import HostError, UnavailableError
from appliance.core.storage import sync_folder

MAX_PAYLOAD_BYTES = 64 * 1024
_HEADER = struct.Struct("<IIQ")
_CHECKED = 8  # bytes of the header in front of what the CRC covers
_SECTOR = 512  # what a disk writes whole or not at all
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


class JournalUnavailableError(UnavailableError):
    """The journal cannot be written now; nothing of what was asked has happened."""

    code = "journal_unavailable"


class JournalDamagedError(HostError):
    """A complete frame fails its check: the disk or somebody changed the journal."""

    code = "journal_damaged"

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(
            f"ALARM: {path} is damaged at byte {offset}",
            hint="keep a copy of the file, look for the cause, and restore the node's receipts from control",
        )


class Segment:
    """One file. A failed `append` leaves it as it was.

    Attributes:
        path: Of the file.
        size: Bytes that are durable.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        """Open a segment that is there; read it with `replay` before the first `append`.

        Raises:
            HostError: If it cannot be opened.
        """
        self.path = path
        self.size = 0
        self._broken = False
        try:
            self._file = os.open(path, _FLAGS) if descriptor is None else descriptor
        except OSError as error:
            raise HostError(f"cannot open {path}", hint="is its folder the notary's own?") from error

    @classmethod
    def make(cls, path: Path, payloads: Sequence[bytes]) -> tuple[Segment, list[int]]:
        """Make a segment that begins with these frames, in one step: it is there with all of them, or not at all.

        Returns:
            The segment, and the offsets of the frames.

        Raises:
            JournalUnavailableError: If that failed; there is no such segment then.
        """
        beside = path.with_name(f"{path.name}.new")
        try:
            descriptor = os.open(beside, _FLAGS | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise _unavailable() from error
        made = cls(path, descriptor)
        try:
            offsets = made.append(payloads)
            os.rename(beside, path)
            sync_folder(path.parent)
        except (OSError, JournalUnavailableError) as error:
            made.close()
            for name in (beside, path):
                with suppress(OSError):
                    os.unlink(name)
            raise _unavailable() from error
        return made, offsets

    def replay(self, *, last: bool) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and payload of every frame; then cut an incomplete tail, which the last segment alone may have.

        Raises:
            JournalDamagedError: At a complete frame that fails its check, or an incomplete one in front of another segment.
        """
        data = _Frames(self._whole())
        for offset, payload in data:
            yield offset, payload
            self.size = offset + _HEADER.size + len(payload)
        if self.size < data.end:
            # The first group was there before the name was (`make`).
            if not last or not self.size or not data.is_torn_at(self.size):
                raise JournalDamagedError(self.path, self.size)
            os.ftruncate(self._file, self.size)
        if (
            last
        ):  # what was read may be in the page cache alone, if the last notary died between write and fsync
            os.fsync(self._file)

    def _whole(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def append(self, payloads: Sequence[bytes]) -> list[int]:
        """Write frames and make them durable together; return their offsets. Blocks for one fsync.

        Raises:
            JournalUnavailableError: If that failed; the segment is then as it was before.
        """
        if self._broken:
            raise JournalUnavailableError(
                "the journal failed and could not be put right", hint="see the disk"
            )
        frames = [_frame(self.size, payload) for payload in payloads]
        try:
            self._write(b"".join(frames))
            os.fsync(self._file)
        except OSError as error:
            self._take_back()
            raise _unavailable() from error
        offsets = []
        for frame in frames:
            offsets.append(self.size)
            self.size += len(frame)
        return offsets

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _take_back(self) -> None:
        # After a failed fsync the kernel may hold the pages as clean: they must go, not be written around.
        try:
            os.ftruncate(self._file, self.size)
            os.fsync(self._file)
        except OSError:
            self._broken = True

    def read(self, offset: int) -> bytes:
        """Return the payload of the frame at `offset`.

        Raises:
            JournalDamagedError: If it fails its check now.
        """
        length, *_ = _HEADER.unpack(os.pread(self._file, _HEADER.size, offset))
        payload = _Frames(os.pread(self._file, _HEADER.size + length, offset)).at(0)
        if payload is None:
            raise JournalDamagedError(self.path, offset)
        return payload

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._file)


class _Frames:
    """The frames in a file's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.end = len(data)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and payload of each, up to the first that fails its check."""
        offset = 0
        while (payload := self.at(offset)) is not None:
            yield offset, payload
            offset += _HEADER.size + len(payload)

    def at(self, offset: int) -> bytes | None:
        """Return the payload of the frame at an offset, None where no complete frame is that passes its check."""
        begin = offset + _HEADER.size
        if begin > self.end:
            return None
        length, check, _ = _HEADER.unpack_from(self._data, offset)
        checked = self._data[offset + _CHECKED : begin + length]
        if not 0 < length <= MAX_PAYLOAD_BYTES or begin + length > self.end or zlib.crc32(checked) != check:
            return None
        return self._data[begin : begin + length]

    def is_torn_at(self, offset: int) -> bool:
        """Return whether what is behind the last good frame is a group that a crash interrupted."""
        groups = [group for group, _ in self._later(offset)]
        if any(group > offset for group in groups):
            return False  # one that was begun later shows that this one was durable
        if self._has_hole(offset):
            return True
        return not groups and self._is_cut_off(offset)

    def _later(self, offset: int) -> Iterator[tuple[int, int]]:
        """Yield group and offset of each good frame behind a bad one, wherever it begins."""
        for place in range(offset + 1, self.end - _HEADER.size):
            length, _, group = _HEADER.unpack_from(self._data, place)
            if length <= MAX_PAYLOAD_BYTES and group <= place and self.at(place) is not None:
                yield group, place

    def _has_hole(self, offset: int) -> bool:
        """Return whether a sector's part of the rest is zeros: no frame holds as many."""
        edges = [offset, *range(offset - offset % _SECTOR + _SECTOR, self.end, _SECTOR), self.end]
        return any(not any(self._data[a:b]) for a, b in pairwise(edges) if a < b)

    def _is_cut_off(self, offset: int) -> bool:
        """Return whether the file ends before the frame does."""
        begin = offset + _HEADER.size
        return begin > self.end or begin + int(_HEADER.unpack_from(self._data, offset)[0]) > self.end


def _frame(group: int, payload: bytes) -> bytes:
    check = zlib.crc32(payload, zlib.crc32(struct.pack("<Q", group)))
    return _HEADER.pack(len(payload), check, group) + payload


def _unavailable() -> JournalUnavailableError:
    return JournalUnavailableError("the journal cannot be written", hint="free disk space")

"""The journal: an append-only file of frames, each a length (u32), a CRC-32 (u32) and a payload, little-endian.

A frame counts from the moment fsync(2) has returned. On start an incomplete tail is cut, since nobody was told that
it was kept; a complete frame that fails its check is never repaired: the notary stops and a person looks.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from appliance.core.errors import HostError, UnavailableError

MAX_PAYLOAD_BYTES = 64 * 1024
_HEADER = struct.Struct("<II")


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


class Journal:
    """One writer's journal. Only one process can have it open (flock)."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal; read it with `replay` before the first `append`.

        Raises:
            HostError: If it cannot be opened or another notary holds it.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sync_folder(path.parent)
        except BlockingIOError as error:
            raise HostError(f"another notary holds {path}", hint="stop it first") from error
        except OSError as error:
            raise HostError(f"cannot open {path}", hint="is its folder the notary's own?") from error
        self.size = 0  # bytes that are durable
        self._broken = False

    def replay(self) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and payload of every frame; then cut an incomplete tail.

        Raises:
            JournalDamagedError: At a complete frame that fails its check.
        """
        end = os.fstat(self._file).st_size
        with open(self._file, "rb", closefd=False) as file:
            while (payload := self._next(file.read, end)) is not None:
                yield self.size, payload
                self.size += _HEADER.size + len(payload)
        if self.size < end:
            os.ftruncate(self._file, self.size)
        # What was read may be in the page cache alone, if the last notary died between write and fsync.
        os.fsync(self._file)

    def _next(self, read: Callable[[int], bytes], end: int) -> bytes | None:
        """Return the payload of the frame at `size`, or None if what is left is an incomplete tail."""
        header = read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        length, check = _HEADER.unpack(header)
        if length == 0 and check == 0 and self._is_zero_to(end):
            return (
                None  # a file system may lengthen the file before the data arrives: zeros nobody was told of
            )
        if not 0 < length <= MAX_PAYLOAD_BYTES:
            raise JournalDamagedError(self.path, self.size)
        payload = read(length)
        if len(payload) < length:
            return None
        if zlib.crc32(payload) != check:
            raise JournalDamagedError(self.path, self.size)
        return payload

    def _is_zero_to(self, end: int) -> bool:
        # More than one group's worth of zeros is no torn write.
        length = min(end - self.size, 2**24)
        return self.size + length == end and not any(os.pread(self._file, length, self.size))

    def append(self, payloads: Sequence[bytes]) -> list[int]:
        """Write frames and make them durable together; return their offsets. Blocks for one fsync.

        Raises:
            JournalUnavailableError: If that failed; the journal is then as it was before.
        """
        if self._broken:
            raise JournalUnavailableError(
                "the journal failed and could not be put right", hint="see the disk"
            )
        frames = [_HEADER.pack(len(p), zlib.crc32(p)) + p for p in payloads]
        try:
            self._write(b"".join(frames))
            os.fsync(self._file)
        except OSError as error:
            self._take_back()
            raise JournalUnavailableError("the journal cannot be written", hint="free disk space") from error
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
        length, check = _HEADER.unpack(os.pread(self._file, _HEADER.size, offset))
        payload = os.pread(self._file, length, offset + _HEADER.size)
        if zlib.crc32(payload) != check:
            raise JournalDamagedError(self.path, offset)
        return payload

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._file)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: fsync of a file says nothing about its entry (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

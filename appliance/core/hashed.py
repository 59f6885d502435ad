"""That root has hashed a model's file in this boot, so that a cell need not: a line beside the file that names exactly this file.

The agent writes `<digest>.hashed` after it read every byte. The line holds what changes whenever somebody touches the file: boot, device,
inode, size, mtime and ctime. The last is the one that nobody can set (inode(7)): a write, a rename, a link or a `touch` moves it. A cell
compares the line with the descriptor that it loads from; if they differ in anything it hashes the bytes itself, so a wrong line costs time
and never lets another file through. Only root writes in the folder; cells see it read-only.
"""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from appliance.core.pin import PinnedFile, verify_open_file
from appliance.core.storage import read_or_none, write_atomic

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Return the kernel's id of this boot, 32 hexadecimal digits (random(4))."""
    return BOOT_ID.read_text("ascii").strip().replace("-", "")


def file_identity(descriptor: int, boot: str) -> bytes:
    """Return the line for an open file as it is now."""
    found = os.fstat(descriptor)
    parts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return f"{boot} {' '.join(map(str, parts))}\n".encode("ascii")


def record_path(models: Path, sha256: str) -> Path:
    """Return where the line of a file lies."""
    return models / f"{sha256}.hashed"


def is_hashed(descriptor: int, models: Path, sha256: str, boot: str) -> bool:
    """Return whether root hashed exactly this open file in this boot."""
    return read_or_none(record_path(models, sha256)) == file_identity(descriptor, boot)


def note_hashed(identity: bytes, models: Path, sha256: str) -> None:
    """Note that a file's bytes are those of this digest.

    Args:
        identity: The file's, taken before its bytes were read: a change meanwhile makes the note worthless, as it should.
    """
    write_atomic(record_path(models, sha256), identity, 0o444)


def verify_weights(file: BufferedReader, pinned: PinnedFile, models: Path, field: str) -> None:
    """As `verify_open_file`, but for a file that root hashed in this boot by its identity alone.

    Raises:
        PinError: If the size or the digest differs.
    """
    same_size = os.fstat(file.fileno()).st_size == pinned.size
    if not same_size or not is_hashed(file.fileno(), models, pinned.sha256, read_boot_id()):
        verify_open_file(file, pinned, field)

"""Write files so that a reader sees the old content or the new, and a power cut leaves one of the two."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int, *, durable: bool = False) -> None:
    """Replace a file.

    Args:
        path: The file; its folder exists.
        data: All of its content.
        mode: Permission bits, set before the file gets its name.
        durable: Wait until content and name are on the disk (fsync(2) of file and folder).
    """
    with _written(path, data, mode, durable=durable) as temporary:
        temporary.replace(path)
    if durable:
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Make a file that must not be there yet, durably: whole, or not at all.

    A key that a power cut left empty would stand in the way of every start after it.

    Raises:
        FileExistsError: If it is there; it is as it was.
    """
    with _written(path, data, mode, durable=True) as temporary:
        os.link(temporary, path)
        temporary.unlink()
    sync_folder(path.parent)


@contextmanager
def _written(path: Path, data: bytes, mode: int, *, durable: bool) -> Iterator[Path]:
    """Yield a file beside `path` that holds the data; it is gone if what is done with it fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_or_none(path: Path) -> bytes | None:
    """Return a file's content, None if there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None

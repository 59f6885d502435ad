"""Where control keeps models' files: one flat folder, each file under the SHA-256 of its bytes, complete or not there at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import Final

from appliance.core.errors import HostError, PinError, UsageError
from appliance.core.pin import PinnedFile
from appliance.core.storage import sync_folder

Progress = Callable[[str, int, int], None]
"""Told what is being read, how many bytes of it are done, and how many there are."""

CHUNK_BYTES: Final = 2**22
_INCOMING: Final = ".incoming-"
_MODE: Final = 0o440  # the folder's group is shared by those who import and the reconciler, who sends


def quiet(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


class ModelFiles:
    """The folder. `appliance control init` makes it, group-owned by those who may import."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        """Return where the file of this digest lies, if it is here."""
        return self._folder / sha256

    def add(self, source: Path, progress: Progress = quiet) -> PinnedFile:
        """Copy a file in, hashing it on the way; a file that is here already is replaced by the same bytes.

        Raises:
            UsageError: If it cannot be read, or is no file.
            HostError: If it does not fit, or the folder cannot be written.
        """
        with open_source(source) as file:
            size = os.fstat(file.fileno()).st_size
            temporary = self._folder / f"{_INCOMING}{secrets.token_hex(8)}"
            try:
                if size > shutil.disk_usage(self._folder).free:
                    raise HostError(
                        "no room for this model",
                        hint=f"free {size} bytes under {self._folder}, or retire another",
                    )
                sha256 = _copy(file, temporary, source.name, size, progress)
                temporary.replace(self.path(sha256))
                sync_folder(self._folder)
            except OSError as error:
                raise HostError(
                    f"cannot write to {self._folder}",
                    hint="run as the web process's user; `appliance control init` makes the folder",
                ) from error
            finally:
                temporary.unlink(missing_ok=True)
        return PinnedFile(path=source.name, size=size, sha256=sha256)

    def open(self, pinned: PinnedFile, field: str) -> BufferedReader:
        """Open a pinned file.

        Raises:
            PinError: If it is not here.
        """
        try:
            return self.path(pinned.sha256).open("rb")
        except OSError as error:
            hint = "import it again: appliance control model import"
            raise PinError("the file is not on this machine", field=field, hint=hint) from error

    def remove(self, digests: Iterable[str]) -> None:
        """Remove files; those that are not here are passed over."""
        for digest in digests:
            self.path(digest).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what an import that was cut off more than a day ago has left."""
        for entry in self._folder.glob(f"{_INCOMING}*"):
            if entry.stat().st_mtime < _yesterday():
                entry.unlink(missing_ok=True)


def verify_bytes(file: BufferedReader, pinned: PinnedFile, field: str, progress: Progress = quiet) -> None:
    """As `appliance.core.pin.verify_open_file`, and tells how far it is: a large model takes minutes.

    Raises:
        PinError: If the size or the digest differs.
    """
    if os.fstat(file.fileno()).st_size != pinned.size:
        raise PinError("the file has another size than its pin", field=f"{field}.size")
    digest, done = hashlib.sha256(), 0
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        done += len(chunk)
        progress(pinned.path, done, pinned.size)
    if digest.hexdigest() != pinned.sha256:
        raise PinError("the file's bytes are not the pinned ones", field=f"{field}.sha256")
    file.seek(0)


def open_source(path: Path) -> BufferedReader:
    """Open a file to import. A link is followed: what counts is the bytes, which are copied and hashed in one pass.

    Raises:
        UsageError: If it cannot be read, or is no file.
    """
    try:
        # O_NONBLOCK: a FIFO named here must not hang the command.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot read {path}", hint="as the web process's user") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} is no file")
    return os.fdopen(descriptor, "rb")


def _copy(file: BufferedReader, target: Path, name: str, size: int, progress: Progress) -> str:
    """Copy exactly `size` bytes; return their digest."""
    digest, done = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as copy:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
            done += len(chunk)
            progress(name, done, size)
        if done != size:
            raise UsageError("the file changed while it was copied")
        copy.flush()
        os.fchmod(copy.fileno(), _MODE)
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _yesterday() -> float:
    return time.time() - 86_400

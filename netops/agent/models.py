"""Model files on a node: content-addressed, complete or absent, hashed when stored and once after every boot.

That a file was hashed is noted beside it (`appliance.core.hashed`); a cell checks that note on the descriptor that it loads from, and
hashes the file itself where it does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from appliance.core.bundle import Bundle
from appliance.core.errors import HostError, PinError, UnavailableError
from appliance.core.hashed import file_identity, is_hashed, note_hashed, read_boot_id, record_path
from appliance.core.storage import sync_folder
from netops.verity import seal

CHUNK_BYTES = 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_INCOMING = ".incoming-"


class ModelStore:
    """The folder models/sha256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clean(self) -> None:
        """Remove what an interrupted transfer left."""
        for entry in self._folder.glob(f"{_INCOMING}*"):
            entry.unlink()

    def digests(self) -> list[str]:
        """Return the digests of complete files."""
        return sorted(entry.name for entry in self._folder.iterdir() if _DIGEST.fullmatch(entry.name))

    def store(self, stream: BinaryIO, sha256: str, size: int) -> bool:
        """Read `size` bytes and keep them under their digest; every byte is read even if they are there already.

        Returns:
            False if the file was there.

        Raises:
            PinError: If the bytes have another digest; the stream is at the next request then.
            UnavailableError: If the stream ends early.
            HostError: If they do not fit; nothing was read then.
        """
        target = self._folder / sha256
        if target.exists() and target.stat().st_size == size:
            _copy(stream, None, size)
            return False
        if size > shutil.disk_usage(self._folder).free:
            raise HostError("no room for this model file", hint="free disk space on the node")
        temporary = self._folder / f"{_INCOMING}{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if _copy(stream, file, size) != sha256:
                    raise PinError("the bytes are not the pinned ones", field="sha256")
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            temporary.replace(target)
            seal(target)
            self._note(target, sha256)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        sync_folder(self._folder)
        return True

    def hash_anew(self, stopping: Callable[[], bool]) -> list[str]:
        """Hash every file that has no note of this boot, or another than it is now; one with other bytes is removed.

        Removed, it is missing: control sends it again with the next pass, and no bundle that pins it is accepted before.

        Args:
            stopping: Asked between pieces; True ends this without a note.

        Returns:
            Digests of what was removed.
        """
        removed: list[str] = []
        for sha256 in self.digests():
            path = self._folder / sha256
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                boot = read_boot_id()
                if is_hashed(file.fileno(), self._folder, sha256, boot):
                    continue
                identity = file_identity(file.fileno(), boot)
                found = _hash(file, stopping)
                if found is None:
                    return removed
                if found == sha256:
                    note_hashed(identity, self._folder, sha256)
                else:
                    record_path(self._folder, sha256).unlink(missing_ok=True)
                    path.unlink()
                    removed.append(sha256)
        return removed

    def observe(self, bundle: Bundle | None) -> list[dict[str, str]]:
        """Return digest and state of every file that a bundle pins: `verified` in this boot, `reading` until it is, or `failed`."""
        pinned = sorted({file.sha256 for pin in bundle.pins for file in pin.files}) if bundle else []
        return [{"sha256": sha256, "state": self._state(sha256)} for sha256 in pinned]

    def _state(self, sha256: str) -> Literal["verified", "reading", "failed"]:
        try:
            with (self._folder / sha256).open("rb") as file:
                hashed = is_hashed(file.fileno(), self._folder, sha256, read_boot_id())
        except OSError:
            return "failed"
        return "verified" if hashed else "reading"

    def _note(self, path: Path, sha256: str) -> None:
        """Note a file whose bytes were hashed while they were written, to a name that nobody but root could open."""
        with path.open("rb") as file:
            note_hashed(file_identity(file.fileno(), read_boot_id()), self._folder, sha256)

    def verify_pinned(self, bundle: Bundle) -> None:
        """Check that every pinned file is here with its size.

        Raises:
            PinError: Naming the file's field in the bundle.
        """
        for i, pin in enumerate(bundle.pins):
            for j, file in enumerate(pin.files):
                path = f"pins.{i}.files.{j}"
                try:
                    size = (self._folder / file.sha256).stat().st_size
                except FileNotFoundError as error:
                    raise PinError("this model file is not on the node", field=path) from error
                if size != file.size:
                    raise PinError("the file on the node has another size than its pin", field=f"{path}.size")


def _hash(file: BinaryIO, stopping: Callable[[], bool]) -> str | None:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        if stopping():
            return None
        digest.update(chunk)
    return digest.hexdigest()


def _copy(stream: BinaryIO, file: BinaryIO | None, size: int) -> str:
    digest = hashlib.sha256()
    left = size
    while left:
        chunk = stream.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise UnavailableError("the transfer ended early")
        digest.update(chunk)
        if file is not None:
            file.write(chunk)
        left -= len(chunk)
    return digest.hexdigest()

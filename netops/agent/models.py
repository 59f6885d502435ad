"""Model files on a node: content-addressed, complete or absent, checked when stored and when a bundle pins them.

The cell checks the digest again on the descriptor that it loads (appliance.core.pin.verify_open_file).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import BinaryIO

from appliance.core.bundle import Bundle
from appliance.core.errors import HostError, PinError, UnavailableError
from appliance.core.storage import sync_folder

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
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        sync_folder(self._folder)
        return True

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

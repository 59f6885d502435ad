"""Whether pinned model files hold the bytes of their digests: read whole, once in a run of the agent for each file.

A file is known by device, inode, size and times: root alone could change its bytes and keep all of them. The cell compares the digest
again on the descriptor that it loads; what is said here is for the operator, who hears of a rotten disk before a client does.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from appliance.core.bundle import Bundle

State = Literal["verified", "reading", "failed"]
_Identity = tuple[int, int, int, int, int]
_Key = tuple[str, _Identity]


def pinned_digests(bundle: Bundle | None) -> list[str]:
    """Return the digests of all files that a bundle pins."""
    return sorted({file.sha256 for pin in bundle.pins for file in pin.files}) if bundle else []


class Digests:
    """Reads files one after the other, in a thread that ends when there is nothing left to read.

    Args:
        folder: models/sha256; each file has its digest as its name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[_Key, bool | None] = {}  # None: not read yet
        self._reading = False

    def observe(self, wanted: Iterable[str]) -> list[dict[str, str]]:
        """Return each file's digest and state, and begin to read those that were not read yet. Does not wait."""
        seen = {digest: self._identify(digest) for digest in wanted}
        keys = {(digest, identity) for digest, identity in seen.items() if identity is not None}
        with self._lock:
            self._known = {key: self._known.get(key) for key in keys}
            states = [
                {"sha256": digest, "state": self._state(digest, identity)}
                for digest, identity in seen.items()
            ]
            if None in self._known.values() and not self._reading:
                self._reading = True
                threading.Thread(target=self._read_all, name="digests", daemon=True).start()
        return states

    def _state(self, digest: str, identity: _Identity | None) -> State:
        if identity is None:
            return "failed"
        known = self._known[digest, identity]
        return "reading" if known is None else "verified" if known else "failed"

    def _read_all(self) -> None:
        while (key := self._next()) is not None:
            verdict = self._verify(*key)
            with self._lock:
                if key in self._known:
                    self._known[key] = verdict

    def _next(self) -> _Key | None:
        with self._lock:
            key = next((key for key, verdict in self._known.items() if verdict is None), None)
            self._reading = key is not None
            return key

    def _verify(self, digest: str, identity: _Identity) -> bool:
        try:
            with (self._folder / digest).open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError:
            return False
        return same and self._identify(digest) == identity

    def _identify(self, digest: str) -> _Identity | None:
        try:
            status = os.stat(self._folder / digest)
        except OSError:
            return None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

"""The container of a backup: gzip over tar, read and written once from its beginning to its end, so that nothing is kept in the clear.

`manifest.json` and `manifest.sig` come last, since only then all digests are known. `age -d -i KEY FILE | tar xz` unpacks it without us.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import RefusedError
from appliance.core.names import decode_base64
from control.backup.age import Lock, Reader, Unlock, Writer
from control.backup.manifest import Manifest, Member, sign_manifest, verify_manifest

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
BUNDLE_KEY: Final = "public/bundle.pub"
_MOST_MANIFEST_BYTES: Final = 512 * 2**20
_PIECE: Final = 2**20
_LEVEL: Final = (
    1  # of gzip: a database of receipts becomes a third; level 9 takes ten times as long for a tenth less
)


class Content(Protocol):
    """What is in a file, read from its beginning to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, none at the end."""


Progress = Callable[[int], None]
"""Told how many bytes more were read of what is backed up or restored."""


@dataclass
class Packer:
    """Writes a backup's files, and remembers what it wrote.

    Attributes:
        members: So far.
    """

    tar: tarfile.TarFile
    progress: Progress
    members: list[Member] = field(default_factory=list)

    def add(self, path: str, content: bytes) -> None:
        """Add a file."""
        self.add_stream(path, len(content), io.BytesIO(content))

    def add_stream(self, path: str, size: int, stream: Content) -> None:
        """Add a file of a known size. Raises RefusedError if its path is none of a backup's."""
        hashing = _Hashing(stream, self.progress)
        self.tar.addfile(_entry(path, size), hashing)
        self.members.append(Member.parse({"path": path, "size": size, "sha256": hashing.digest()}))

    def close(self, manifest: Manifest, key: Ed25519PrivateKey) -> None:
        """Add the manifest and its signature."""
        text, signature = manifest.canonical_bytes(), sign_manifest(manifest, key).encode("ascii")
        self.tar.addfile(_entry(MANIFEST, len(text)), io.BytesIO(text))
        self.tar.addfile(_entry(SIGNATURE, len(signature)), io.BytesIO(signature))


@contextmanager
def packing(file: BinaryIO, lock: Lock, progress: Progress) -> Iterator[Packer]:
    """Yield what takes the files; the container is whole once the block has ended without an error."""
    cipher = Writer(file, lock)
    with gzip.GzipFile(fileobj=cipher, mode="wb", compresslevel=_LEVEL, mtime=0, filename="") as packed:
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            yield Packer(tar, progress)
    cipher.finish()


Take = Callable[[str, int, Content], None]
"""Takes a file of a backup: its path, its size, its content, which must be read to the end."""


@dataclass(frozen=True)
class Unpacked:
    """A backup that was read to its end, every byte of it authentic and as its manifest says.

    Attributes:
        manifest: Its own.
        bundle_key: That signed it, canonical base64.
    """

    manifest: Manifest
    bundle_key: str


def unpack(file: BinaryIO, unlock: Unlock, take: Take, progress: Progress) -> Unpacked:
    """Hand every file to `take`, and return the manifest once all are there.

    Raises:
        RefusedError: If the file is damaged, cut, for somebody else, or not what its manifest says. What was taken is worth nothing then.
    """
    plain = io.BufferedReader(Reader(file, unlock), _PIECE)
    try:
        with gzip.GzipFile(fileobj=plain) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            found = _read_members(tar, take, progress)
            while packed.read(_PIECE):  # to the end: only there a cut shows
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RefusedError("what is in the file is no backup", field="file") from error
    return found


def _read_members(tar: tarfile.TarFile, take: Take, progress: Progress) -> Unpacked:
    members: list[Member] = []
    last: dict[str, bytes] = {}
    bundle_key = b""
    for entry in tar:
        stream = tar.extractfile(entry) if entry.isreg() else None
        if stream is None:
            raise RefusedError("it holds what is no file", field="file")
        if entry.name in (MANIFEST, SIGNATURE):
            last[entry.name] = stream.read(_MOST_MANIFEST_BYTES)
            continue
        member = Member.parse({"path": entry.name, "size": entry.size, "sha256": "0" * 64})
        if last:
            raise RefusedError("a file in the wrong place", field="file")
        hashing = _Hashing(stream, progress)
        if entry.name == BUNDLE_KEY:
            bundle_key = hashing.read(64)
            take(entry.name, entry.size, io.BytesIO(bundle_key))
        else:
            take(entry.name, entry.size, hashing)
        members.append(Member(path=member.path, size=member.size, sha256=hashing.digest()))
    return _verify(members, last, bundle_key)


def _verify(members: list[Member], last: dict[str, bytes], bundle_key: bytes) -> Unpacked:
    try:
        key = bundle_key.decode("ascii").strip()
        decode_base64(key)
        manifest = verify_manifest(last[MANIFEST], last[SIGNATURE].decode("ascii"), key)
    except (KeyError, ValueError) as error:
        raise RefusedError("it has no manifest, or not the key that signed it", field="manifest") from error
    if manifest.files != tuple(members) or len({member.path for member in members}) != len(members):
        raise RefusedError("its files are not those of its manifest", field="manifest")
    return Unpacked(manifest, key)


class _Hashing:
    """Reads a stream, its SHA-256 with it."""

    def __init__(self, stream: Content, progress: Progress) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._progress(len(data))
        return data

    def digest(self) -> str:
        return self._hash.hexdigest()


def _entry(path: str, size: int) -> tarfile.TarInfo:
    """Return the header of a file: no time and no owner, so that the same files make the same container."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, 0o600
    return entry

"""Looks for content where none may be left: memory of every process, tmpfs, deleted but open files, the raw disk.

Runs on the host, outside the machine it looks into, so that it never finds itself.

Forms searched: UTF-8 (which is also the JSON and URL form of a canary made of letters and digits), UTF-16 and UTF-32 as
CPython and libraries may hold text, base64 at its three alignments, and hexadecimal.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.lab.machine import Machine

CHUNK_BYTES = 16 * 2**20
# What a command line must contain for the process to be called by that name; the first that fits counts.
SERVICES = {
    "inference.confinement.stub": "cell",
    "appliance launcher": "launcher",
    "appliance notary": "notary",
    "appliance agent": "agent",
    "appliance node relay": "relay",
    "appliance.lab.init": "init",
    "wireguard-go": "wireguard-go",
    "nginx": "nginx",
    "sshd": "sshd",
}
SKIPPED = ("[vvar]", "[vsyscall]", "[vvar_vclock]")  # kernel pages that cannot be read through /proc/PID/mem


def make_canary() -> str:
    """Return a text that occurs nowhere else: letters and digits only."""
    return "kanarie" + secrets.token_hex(12)


def forms(canary: str) -> tuple[bytes, ...]:
    """Return the byte patterns of a canary."""
    plain = canary.encode("ascii")
    shifted = (base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4] for shift in range(3))
    return (plain, canary.encode("utf-16-le"), canary.encode("utf-32-le"), plain.hex().encode(), *shifted)


@dataclass
class Found:
    """Copies found, by place."""

    places: dict[str, int] = field(default_factory=dict)
    processes: int = 0
    bytes: int = 0

    @property
    def total(self) -> int:
        """Copies in all."""
        return sum(self.places.values())

    def add(self, place: str, copies: int) -> None:
        """Count copies at a place."""
        if copies:
            self.places[place] = self.places.get(place, 0) + copies


def scan(machine: Machine, patterns: tuple[bytes, ...]) -> Found:
    """Search everything of a machine: processes, tmpfs, deleted files, disk.

    The newest processes first, since content in use does not wait. Dirty pages are forced to the disk before that is
    read: a grep of a disk that was not synced passes falsely.
    """
    found = Found()
    for pid in sorted(machine.processes(), reverse=True):
        found.processes += 1
        name = _name(pid)
        _search(found, f"memory of {name}", _memory(pid), patterns)
        _search(found, f"deleted files of {name}", _deleted(pid), patterns)
    for folder in ("run", "tmp", "dev/shm"):
        _search(found, f"/{folder}", _files(machine.root / folder), patterns)
    image = machine.folder / "disk.img"
    os.sync()
    if image.exists():
        _search(found, "raw disk", _chunks(image), patterns)
    return found


@contextmanager
def syncing() -> Iterator[None]:
    """Sync in a loop meanwhile, so that even short-lived files reach the disk image."""
    with subprocess.Popen(["sh", "-c", "while sync; do sleep 0.02; done"], stdin=subprocess.DEVNULL) as loop:
        try:
            yield
        finally:
            loop.kill()


def _search(found: Found, place: str, pieces: Iterable[bytes], patterns: tuple[bytes, ...]) -> None:
    overlap = max(map(len, patterns)) - 1
    tail = b""
    for piece in pieces:
        found.bytes += len(piece)
        window = tail + piece
        # A copy that lies wholly in the tail was counted with the piece before.
        found.add(place, sum(window.count(p) - tail.count(p) for p in patterns))
        tail = window[-overlap:] if piece else b""


def _memory(pid: int) -> Iterator[bytes]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                span, rights, *rest = line.split()
                if rights[0] == "r" and rest[-1] not in SKIPPED:
                    yield from _region(memory.fileno(), *(int(part, 16) for part in span.split("-")))
    except OSError:  # it ended meanwhile, so its memory is gone
        return


def _region(memory: int, start: int, end: int) -> Iterator[bytes]:
    for offset in range(start, end, CHUNK_BYTES):
        try:
            yield os.pread(memory, min(CHUNK_BYTES, end - offset), offset)
        except OSError:  # a mapping beyond the end of its file
            return
    yield b""


def _deleted(pid: int) -> Iterator[bytes]:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
            if target.startswith("/") and target.endswith(" (deleted)") and descriptor.is_file():
                yield from _chunks(descriptor)
        except OSError:
            continue


def _files(folder: Path) -> Iterator[bytes]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not os.path.ismount(os.path.join(parent, f))]
        for name in names:
            path = Path(parent) / name
            yield name.encode(errors="surrogateescape")
            if path.is_file() and not path.is_symlink():
                yield from _chunks(path)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield data
    except OSError:
        return
    yield b""


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a process that ended"
    text = b" ".join(word for word in words if not word.startswith(b"-")).decode("utf-8", "replace")
    return next(
        (name for mark, name in SERVICES.items() if mark in text),
        Path(words[0].decode("utf-8", "replace")).name,
    )

"""Looks for content where none may be left: memory of every process, tmpfs, deleted but open files, the raw disk.

Runs on the host, outside the machine it looks into, so that it never finds itself.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.audit.memory import CHUNK_BYTES, count_in, read_memory
from appliance.lab.machine import Machine

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

    NGINX first, since content in use does not wait: it holds a request until that is answered, a cell only until it has read it. Then
    the newest processes. Dirty pages are forced to the disk before that is
    read: a grep of a disk that was not synced passes falsely.
    """
    found = Found()
    for pid in sorted(machine.processes(), key=lambda pid: (_name(pid) == "nginx", pid), reverse=True):
        found.processes += 1
        name = _name(pid)
        _search(found, f"memory of {name}", read_memory(pid), patterns)
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
    found.add(place, sum(count_in(_weighed(found, pieces), patterns).values()))


def _weighed(found: Found, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        found.bytes += len(piece)
        yield piece


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

"""What a cell sees of the machine: a read-only system without homes, without state, and with four folders of ours.

    1. remember the sources by descriptor, since the next step hides them
    2. cover every folder that could hold somebody's data with an empty one
    3. bind the sources into the empty folders
    4. mount a /proc that shows this PID namespace alone
    5. make everything read-only, and no file set-user-ID

Run inside a new mount namespace, as root. Sources: mount(2), mount_setattr(2), mount_namespaces(7).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.core.node import NodePaths
from inference.confinement import libc
from inference.confinement.places import interpreter_folders
from inference.confinement.syscalls import MOUNT_SETATTR

POLICY = "/run/appliance/cell/policy.json"
NOTARY = "/run/appliance/notary/notary.sock"
SEATS = "/run/appliance/seats"
MODELS = "/var/lib/appliance/models/sha256"

_HIDDEN = tuple(
    Path(folder)
    for folder in ("/home", "/root", "/run", "/tmp", "/var", "/srv", "/mnt", "/media", "/boot", "/dev")  # noqa: S108
)
_EMPTY_FOLDERS = ("/dev/shm", "/var/tmp")  # noqa: S108
_DEVICES = tuple(map(Path, ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")))

_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18  # linux/mount.h
_AT_RECURSIVE = 0x8000
_ATTRIBUTE_READ_ONLY, _ATTRIBUTE_NOSUID = 1, 2


@dataclass(frozen=True)
class Bind:
    """One folder or device of the machine and where the cell sees it."""

    source: Path
    target: Path


def plan_view(client: str, paths: NodePaths, interpreter: Iterable[Path]) -> tuple[Bind, ...]:
    """Return the binds for a client's cell. Pure.

    Args:
        client: Its name.
        paths: Where things are on this node.
        interpreter: Folders without which Python does not start; kept where they lie if a hidden folder holds them.
    """
    ours = (
        Bind(paths.clients / client, Path(POLICY).parent),
        Bind(paths.notary_clients / client, Path(NOTARY).parent),
        Bind(paths.seats, Path(SEATS)),
        Bind(paths.models, Path(MODELS)),
    )
    kept: list[Path] = []
    for folder in sorted(interpreter, key=lambda path: len(path.parts)):
        hidden = any(folder.is_relative_to(cover) for cover in _HIDDEN)
        if hidden and not any(folder.is_relative_to(outer) for outer in kept):
            kept.append(folder)
    return (*ours, *(Bind(path, path) for path in (*kept, *_DEVICES)))


def apply_view(client: str, paths: NodePaths) -> None:
    """Build the view in this mount namespace. What is missing is left out: the cell then names what it lacks.

    Raises:
        OSError: If the kernel refuses a mount.
    """
    libc.mount("none", "/", None, _REC | _PRIVATE)
    opened = [(_open(bind.source), bind.target) for bind in plan_view(client, paths, interpreter_folders())]
    for folder in _HIDDEN:
        if folder.is_dir() and not folder.is_symlink():
            flags = _NOSUID | _NOEXEC | (0 if folder == Path("/dev") else _NODEV)
            libc.mount("none", str(folder), "tmpfs", flags, "mode=0755,size=1m")
    for descriptor, target in opened:
        if descriptor is not None:
            _bind(descriptor, target)
    for empty in _EMPTY_FOLDERS:
        os.makedirs(empty, exist_ok=True)
    libc.mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    attributes = struct.pack("=QQQQ", _ATTRIBUTE_READ_ONLY | _ATTRIBUTE_NOSUID, 0, 0, 0)
    libc.syscall(MOUNT_SETATTR, -100, b"/\0", _AT_RECURSIVE, attributes, len(attributes))  # -100: AT_FDCWD


def _open(source: Path) -> int | None:
    try:
        return os.open(source, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None


def _bind(descriptor: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    libc.mount(f"/proc/self/fd/{descriptor}", str(target), None, _BIND)
    os.close(descriptor)

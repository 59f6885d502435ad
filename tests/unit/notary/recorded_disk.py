"""What a disk may hold after the power went: everything that was synced, and any part of what was not.

`RecordedDisk` notes what a program does to one folder while it runs; `after_crash` makes the folder anew as it may be found if the power
went at some point of that. Data that was not synced is there by sectors of 512 bytes, in any order, or not at all, with zeros where a
file was lengthened; names that were not synced are there in the order in which they were made, up to some point (a journaled file system).
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECTOR = 512


@dataclass(frozen=True)
class Write:
    """Bytes that a program handed to the kernel."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    """A file that was made shorter."""

    inode: int
    size: int


@dataclass(frozen=True)
class Names:
    """Names of one folder that changed together: a new inode, or None where the name went."""

    changes: tuple[tuple[Path, int | None], ...]


@dataclass(frozen=True)
class Sync:
    """An fsync that returned: of a file (inode), or of a folder (its path)."""

    of: int | Path


@dataclass(frozen=True)
class Mark:
    """What somebody was told at this moment."""

    what: Any


@dataclass
class RecordedDisk:
    """What was in a folder, and the operations on it, in order."""

    root: Path
    before: dict[Path, tuple[int, bytes]] = field(default_factory=dict)
    operations: list[Write | Truncate | Names | Sync | Mark] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def mark(self, what: Any) -> None:
        """Note that somebody was told something: from now on it must hold."""
        with self._lock:
            self.operations.append(Mark(what))

    @contextmanager
    def recording(self, *, lies: Callable[[Path], bool] = lambda _: False) -> Iterator[None]:
        """Record while inside. `lies` says for which files and folders fsync does nothing and says it did: for controls."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        self.before = {path: (path.stat().st_ino, path.read_bytes()) for path in files}
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "write", "ftruncate", "rename", "replace", "link", "unlink"):
                patch.setattr(os, name, self._recorded(getattr(os, name), getattr(self, f"_{name}")))
            patch.setattr(os, "fsync", self._recorded(os.fsync, lambda do, fd: self._fsync(do, fd, lies)))
            yield

    def _recorded(self, do: Callable[..., Any], record: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                return record(do, *args, **options)

        return call

    def _here(self, path: Any) -> Path | None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        found = Path(os.fsdecode(path))
        return found if found.is_relative_to(self.root) else None

    def _open(self, do: Callable[..., int], path: Any, flags: int, *args: Any, **options: Any) -> int:
        here = None if options.get("dir_fd") is not None else self._here(path)
        new = here is not None and flags & os.O_CREAT and not here.exists()
        descriptor = do(path, flags, *args, **options)
        if here is not None and new:
            self.operations.append(Names(((here, os.fstat(descriptor).st_ino),)))
        elif here is not None and flags & os.O_TRUNC:
            self.operations.append(Truncate(os.fstat(descriptor).st_ino, 0))
        return descriptor

    def _write(self, do: Callable[..., int], descriptor: int, data: Any) -> int:
        here = self._here(descriptor) if not isinstance(data, str) else None
        offset = os.fstat(descriptor).st_size
        written = do(descriptor, data)
        if here is not None:
            self.operations.append(Write(os.fstat(descriptor).st_ino, offset, bytes(data[:written])))
        return written

    def _ftruncate(self, do: Callable[..., None], descriptor: int, size: int) -> None:
        do(descriptor, size)
        if self._here(descriptor) is not None:
            self.operations.append(Truncate(os.fstat(descriptor).st_ino, size))

    def _rename(self, do: Callable[..., None], source: Any, target: Any) -> None:
        here = self._here(target)
        do(source, target)
        if here is not None:
            self.operations.append(Names(((Path(source), None), (here, here.stat().st_ino))))

    _replace = _rename

    def _unlink(self, do: Callable[..., None], path: Any, **options: Any) -> None:
        here = None if options.get("dir_fd") is not None else self._here(path)
        do(path, **options)
        if here is not None:
            self.operations.append(Names(((here, None),)))

    def _link(self, do: Callable[..., None], source: Any, target: Any, **options: Any) -> None:
        here = self._here(target)
        do(source, target, **options)
        if here is not None:
            self.operations.append(Names(((here, here.stat().st_ino),)))

    def _fsync(self, do: Callable[[int], None], descriptor: int, lies: Callable[[Path], bool]) -> None:
        here = self._here(descriptor)
        do(descriptor)
        if here is None or lies(here):
            return
        if here.is_dir():
            self.operations.append(Sync(here))
            return
        inode = os.fstat(descriptor).st_ino
        if here.name.startswith("."):  # written through a file object, whose writes are not seen one by one
            self.operations.append(Write(inode, 0, here.read_bytes()))
        self.operations.append(Sync(inode))

    def after_crash(self, at: int, seed: int) -> dict[Path, bytes]:
        """Return the files as they may be if the power went before operation `at`."""
        chance = random.Random(seed)
        disk = _Disk(chance, chance.choice(("lost", "whole", "prefix", "sectors")))
        disk.names = {path: inode for path, (inode, _) in self.before.items()}
        disk.data = {inode: bytearray(data) for inode, data in self.before.values()}
        for operation in self.operations[:at]:
            disk.apply(operation)
        return disk.files()

    @property
    def points(self) -> int:
        """How many moments there are at which the power can go."""
        return len(self.operations) + 1

    def told(self, at: int) -> list[Any]:
        """Return what somebody had been told before operation `at`."""
        return [done.what for done in self.operations[:at] if isinstance(done, Mark)]


@dataclass
class _Disk:
    """Durable names and bytes, and what waits to become so."""

    chance: random.Random
    mode: str
    names: dict[Path, int] = field(default_factory=dict)
    data: dict[int, bytearray] = field(default_factory=dict)
    waiting_names: list[Names] = field(default_factory=list)
    waiting_data: dict[int, list[Write | Truncate]] = field(default_factory=dict)

    def apply(self, operation: Write | Truncate | Names | Sync | Mark) -> None:
        match operation:
            case Write() | Truncate():
                self.waiting_data.setdefault(operation.inode, []).append(operation)
            case Names():
                self.waiting_names.append(operation)
            case Sync(of=int() as inode):
                for waiting in self.waiting_data.pop(inode, []):
                    self._land(waiting, whole=True)
            case Sync(of=folder):
                kept: list[Names] = []
                for names in self.waiting_names:
                    same = any(path.parent == folder for path, _ in names.changes)
                    self._rename(names) if same else kept.append(names)
                self.waiting_names = kept

    def _rename(self, names: Names) -> None:
        for path, inode in names.changes:
            if inode is None:
                self.names.pop(path, None)
            else:
                self.names[path] = inode

    def _land(self, operation: Write | Truncate, *, whole: bool) -> None:
        data = self.data.setdefault(operation.inode, bytearray())
        if isinstance(operation, Truncate):
            del data[operation.size :]
            return
        end = operation.offset + len(operation.data)
        if not whole and self.mode == "prefix":
            end = self.chance.randint(operation.offset, end)
        data.extend(bytes(max(0, end - len(data))))
        begin = operation.offset
        while begin < end:
            next_sector = min(end, begin - begin % SECTOR + SECTOR)
            if whole or self.mode != "sectors" or self.chance.random() < 0.5:
                piece = operation.data[begin - operation.offset : next_sector - operation.offset]
                data[begin:next_sector] = piece
            begin = next_sector

    def files(self) -> dict[Path, bytes]:
        """Let some of what waits become durable, and return what is there then."""
        if self.mode != "lost":
            count = len(self.waiting_names)
            survive = count if self.mode == "whole" else self.chance.randint(0, count)
            for names in self.waiting_names[:survive]:
                self._rename(names)
            for waiting in self.waiting_data.values():
                for operation in waiting:
                    self._land(operation, whole=self.mode == "whole")
        return {path: bytes(self.data.get(inode, b"")) for path, inode in self.names.items()}

"""What the disk does by itself: bare fsync, and which pages of a file it does not have yet."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import time
from pathlib import Path
from typing import Final

from appliance.core.errors import HostError

_CACHESTAT: Final = 451  # cachestat(2), Linux 6.5, one number on every architecture
_IN_MEMORY: Final = {"tmpfs", "ramfs"}


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Pages(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def scratch_parent() -> Path:
    """Return a folder for temporary files that lies on a disk: fsync in memory says nothing.

    Raises:
        HostError: If there is none.
    """
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp")):  # noqa: S108 - a folder is made in it, mode 0700
        if folder.is_dir() and not is_in_memory(folder):
            return folder
    raise HostError("temporary files lie in memory", hint="set TMPDIR to a folder on a disk")


def is_in_memory(folder: Path) -> bool:
    """Whether a folder lies on a file system without a disk (proc_pid_mountinfo(5))."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == number and kind.split()[0] in _IN_MEMORY:
            return True
    return False


def records_per_s(folder: Path, record_bytes: int, group: int, seconds: float) -> float:
    """Return how many records per second one writer makes durable with one fsync for each group.

    Args:
        folder: Where the file is made.
        record_bytes: Of one record.
        group: Records that share an fsync.
        seconds: How long it is tried.
    """
    data = os.urandom(record_bytes * group)
    path = folder / "bare"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        written, started = 0, time.perf_counter()
        while (took := time.perf_counter() - started) < seconds:
            os.write(descriptor, data)
            os.fsync(descriptor)
            written += group
    finally:
        os.close(descriptor)
        path.unlink()
    return written / took


def unsynced_pages(folder: Path) -> int | None:
    """Return how many pages of the files in a folder the disk does not have yet; None where the kernel cannot say."""
    return sum_or_none([_unsynced_pages_of(path) for path in folder.rglob("*") if path.is_file()])


def sum_or_none(counts: list[int | None]) -> int | None:
    """Return the sum, None if one is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _unsynced_pages_of(path: Path) -> int | None:
    pages = _Pages()
    with path.open("rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.syscall(_CACHESTAT, file.fileno(), ctypes.byref(_Range(0, 0)), ctypes.byref(pages), 0)
    if not failed:
        return int(pages.dirty + pages.writeback)
    if ctypes.get_errno() in {errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP}:
        return None
    raise HostError(f"cachestat: {os.strerror(ctypes.get_errno())}")

"""Landlock by raw system calls: what is not on a short read-only list does not exist for the cell.

Every right that the running kernel knows is handled, that is refused unless a rule allows it, so a newer kernel
confines more without a change here. From ABI 4 on TCP, from ABI 6 on signals and abstract Unix sockets, from ABI 9 on
Unix sockets by path are refused as well.

Sources: landlock(7), landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2), linux/landlock.h.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inference.confinement import libc
from inference.confinement.syscalls import LANDLOCK_ADD_RULE, LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF

REQUIRED_ABI = 2  # Linux 5.19; the oldest that Debian 12 and Ubuntu 22.04's newer kernels have

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
# The path of a refused access would be written to the audit log, and a cell chooses the path: so none is logged.
_LOG_SAME_EXEC_OFF = 1


@dataclass(frozen=True)
class Handled:
    """The rights that an ABI knows: of files (bits), of TCP, and what reaches beyond the domain."""

    files: int
    network: int
    scoped: int


def rights_of(abi: int) -> Handled:
    """Return every right that a kernel of this ABI can handle, up to ABI 9."""
    files = (1 << 13) - 1  # ABI 1: execute, write, read, list, remove, make …
    for needed, bit in ((2, 13), (3, 14), (5, 15), (9, 16)):  # refer, truncate, ioctl_dev, resolve_unix
        files |= 1 << bit if abi >= needed else 0
    return Handled(files, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)


def observe_abi() -> int:
    """Return the kernel's Landlock ABI, 0 if it has none or it is off."""
    try:
        return libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def apply_restrictions(readable: Iterable[Path], abi: int) -> None:
    """Restrict this process for good to reading what lies beneath `readable`, and to `/dev/null`.

    Args:
        readable: Folders and files; those that do not exist are passed over.
        abi: What `observe_abi` found.

    Raises:
        OSError: If the kernel refuses; the process is then not confined.
    """
    handled = rights_of(abi)
    attribute = struct.pack("=QQQ", handled.files, handled.network, handled.scoped)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, attribute[:size], size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        # llama_cpp opens /dev/null for writing when it is imported; nothing written there is kept.
        _allow(ruleset, Path(os.devnull), _READ_FILE | _WRITE_FILE)
        libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, _LOG_SAME_EXEC_OFF if abi >= 7 else 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what cannot be opened needs no right
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= ~_READ_DIR  # a right of folders alone: EINVAL on a file
        rule = struct.pack("=Qi", rights, parent)  # struct landlock_path_beneath_attr is packed
        libc.syscall(LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(parent)

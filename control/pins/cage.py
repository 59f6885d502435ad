"""Shuts this process in for good: no file can be opened, nothing written, no host reached, little memory and time.

The cell's own confinement (`inference.confinement`) is more, and out of reach for control, which never imports what handles content. A
process that lives for a second and holds nothing but open files needs less; none of this needs a right.

    1. a user namespace with a network namespace in it, where the kernel lets us; it is empty
    2. no new privileges (prctl(2)), then Landlock with no rule at all (landlock(7)): every right it knows is refused
    3. limits of memory, processor time, file size and open files (setrlimit(2))
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Final

from appliance.core.errors import HostError

MEMORY_BYTES: Final = (
    2**30
)  # a head of 256 MiB is read in pieces; a template that grows beyond this is an attack
PROCESSOR_S: Final = 20  # the largest heads take two seconds
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on every architecture

_libc = ctypes.CDLL(None, use_errno=True)


def shut_in() -> None:
    """Confine this process, which has one thread.

    Raises:
        HostError: If the kernel has no Landlock.
    """
    # Refused where user namespaces are off. No descriptor is left for a socket then either, and Landlock refuses TCP from ABI 4 on.
    _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    _refuse_all()
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: PROCESSOR_S,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def _refuse_all() -> None:
    abi = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        raise HostError(
            "this kernel has no Landlock, and a model is opened only where nothing else can be",
            hint="Linux 5.13 or later with lsm=landlock",
        )
    files = (1 << 13) - 1  # ABI 1
    for needed, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl_dev
        files |= 1 << bit if abi >= needed else 0
    rights = struct.pack("=QQQ", files, 0b11, 0b11)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, rights, len(rights), 0)
    refused = (
        ruleset < 0
        or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0
    )
    if refused:
        raise HostError("the kernel refuses to confine a process", hint="see landlock(7)")
    os.close(ruleset)

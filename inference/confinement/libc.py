"""The few calls of the C library and the kernel that Python has no function for.

Each raises OSError with the kernel's errno. Sources: syscall(2), prctl(2), unshare(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: int | ctypes.c_void_p | bytes | None) -> int:
    """Make a raw system call.

    Args:
        number: For this architecture.
        arguments: Integers are passed as longs, bytes as pointers to them, None as the null pointer.
    """
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(int(_LIBC.syscall(ctypes.c_long(number), *passed)))


def prctl(option: int, value: int = 0) -> int:
    """Change or read a property of this process (prctl(2)); unused arguments are zero, as the kernel demands."""
    zero = ctypes.c_ulong(0)
    return _checked(int(_LIBC.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero)))


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` (CLONE_NEW…) name for new ones (unshare(2))."""
    _checked(int(_LIBC.unshare(ctypes.c_int(flags))))


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount `source` on `target` (mount(2))."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _checked(int(_LIBC.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_CAPABILITY_VERSION_3 = (
    0x2008_0522  # capget(2): two 32-bit words in each of effective, permitted, inheritable
)


def drop_capabilities() -> None:
    """Give up every capability for good: with no_new_privs and no exec none comes back (capset(2))."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    _checked(int(_LIBC.capset(ctypes.byref(header), bytes(24))))


def held_capabilities() -> int:
    """Return how many bytes of this process's capability sets are not zero (0: it holds none)."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _checked(int(_LIBC.capget(ctypes.byref(header), sets)))
    return sum(1 for byte in sets.raw if byte)

"""The system call filter: a classic BPF program built here, without libseccomp.

It refuses what a cell never needs (`syscalls.REFUSED`), the dangerous arguments of what it does need, and every call
newer than the list that was reviewed. What is left is Python, llama.cpp and two sockets that were open before.

Sources: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, bpf opcodes from linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from inference.confinement import libc, syscalls

_LD, _AND, _RET = 0x20, 0x54, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_RET|BPF_K
_JEQ, _JGE, _JSET = 0x15, 0x35, 0x45  # BPF_JMP|…|BPF_K

_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000  # linux/seccomp.h
_EPERM = _ERRNO | errno.EPERM
_ENOSYS = _ERRNO | errno.ENOSYS

_NR, _ARCH = 0, 4  # offsets in struct seccomp_data; arguments follow at 16, eight bytes each, little-endian
_X32 = 0x4000_0000  # bit of x32 calls: the same arch value, other numbers, so they would slip through

_NAMESPACE_FLAGS = 0x7E02_0000  # CLONE_NEWNS|CGROUP|UTS|IPC|USER|PID|NET
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE_MASK = 1, 1, 0xF
_OWNER_COMMANDS = (
    8,
    10,
    15,
)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: they make the kernel signal a process of our choice
_REFUSED_IOCTLS = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP

LISTENER = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


def _argument(index: int, *, high: bool = False) -> Instruction:
    return (_LD, 0, 0, 16 + 8 * index + (4 if high else 0))


def _return(action: int) -> Instruction:
    return (_RET, 0, 0, action)


def _refuse(number: int, action: int = _EPERM) -> list[Instruction]:
    return [(_JEQ, 0, 1, number), _return(action)]


def _only(number: int, body: list[Instruction]) -> list[Instruction]:
    """Run `body` for one call only; a body that does not return falls through to the rules that follow."""
    return [(_JEQ, 0, len(body) + 1, number), *body, (_LD, 0, 0, _NR)]


def _unless_equal(index: int, *values: int) -> list[Instruction]:
    """Refuse unless the low half of an argument is one of `values`."""
    tests = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(index), *tests, _return(_EPERM)]


def _if_equal(index: int, *values: int) -> list[Instruction]:
    tests = [step for value in values for step in _refuse(value)]
    return [_argument(index), *tests]


def _conditional(column: int, pid: int) -> list[Instruction]:
    """The rules for calls that are needed for some arguments only."""
    number = {name: numbers[column] for name, numbers in syscalls.CONDITIONAL.items()}
    # An unconnected datagram pair could send to any Unix socket by path: only streams, and never with an address.
    pair = [
        *_unless_equal(0, _AF_UNIX),
        _argument(1),
        (_AND, 0, 0, _SOCK_TYPE_MASK),
        (_JEQ, 1, 0, _SOCK_STREAM),
        _return(_EPERM),
    ]
    address = [*_unless_equal(4, 0), _argument(4, high=True), (_JEQ, 1, 0, 0), _return(_EPERM)]
    return [
        *_refuse(number["clone3"], _ENOSYS),  # its flags lie behind a pointer; glibc then falls back to clone
        *_only(number["clone"], [_argument(0), (_JSET, 0, 1, _NAMESPACE_FLAGS), _return(_EPERM)]),
        # asyncio sets the backlog of the inherited socket anew
        *_only(number["listen"], _unless_equal(0, LISTENER)),
        *_only(number["kill"], _unless_equal(0, pid)),
        *_only(number["tgkill"], _unless_equal(0, pid)),
        *_only(number["prlimit64"], _unless_equal(0, 0, pid)),
        *_only(number["socketpair"], pair),
        *_only(number["sendto"], address),
        *_only(number["prctl"], _if_equal(0, libc.PR_SET_DUMPABLE)),
        *_only(number["fcntl"], _if_equal(1, *_OWNER_COMMANDS)),
        *_only(number["ioctl"], _if_equal(1, *_REFUSED_IOCTLS)),
    ]


def render_filter(machine: str, pid: int) -> bytes:
    """Return the BPF program for an architecture. Pure.

    Args:
        machine: `x86_64` or `aarch64`.
        pid: The one process that this process may signal: itself.
    """
    column = syscalls.COLUMN[machine]
    program: list[Instruction] = [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 1, 0, syscalls.AUDIT_ARCH[machine]),
        _return(_KILL),  # a 32-bit call: other numbers, so no rule below would mean what it says
        (_LD, 0, 0, _NR),
    ]
    if machine == "x86_64":
        program += [(_JGE, 0, 1, _X32), _return(_EPERM)]
    program += [(_JGE, 0, 1, syscalls.LAST_REVIEWED + 1), _return(_ENOSYS)]
    for numbers in syscalls.REFUSED.values():
        number = numbers[column]
        program += [] if number is None else _refuse(number)
    program += _conditional(column, pid)
    program.append(_return(_ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in program)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_SET_MODE_FILTER = 1
_FLAG_TSYNC = 1  # every thread, although there must be only one


def apply_filter() -> None:
    """Put the filter in force for this process and everything it starts. It cannot be taken off.

    Raises:
        OSError: If the kernel has no seccomp filters or the architecture is unknown.
    """
    machine = syscalls.machine()
    text = render_filter(machine, os.getpid())
    program = _Program(len(text) // 8, text)
    number = syscalls.SECCOMP[syscalls.COLUMN[machine]]
    libc.syscall(number, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.cast(ctypes.byref(program), ctypes.c_void_p))

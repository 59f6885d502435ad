"""The filter's program, run by an interpreter of classic BPF: for every architecture, not only this machine's."""

from __future__ import annotations

import errno
import os
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.confinement import seccomp, syscalls

PID = 4711
MACHINES = tuple(syscalls.COLUMN)
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF_0000, 0x8000_0000, 0x0005_0000 | errno.EPERM, 0x0005_0000 | errno.ENOSYS


def judge(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Return what the filter of an architecture answers."""
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    found = syscalls.AUDIT_ARCH[machine] if arch is None else arch
    data = struct.pack("<IIQ6Q", number & 0xFFFF_FFFF, found, 0, *(a & 2**64 - 1 for a in padded))
    program = list(struct.iter_unpack("=HBBI", seccomp.render_filter(machine, PID)))
    accumulator = place = 0
    while True:
        code, true, false, k = program[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x06:
            return int(k)
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            place += true if holds else false


def call(machine: str, name: str, *arguments: int) -> int:
    return judge(machine, syscalls.CONDITIONAL[name][syscalls.COLUMN[machine]], *arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_refused_and_the_rest_is_not(machine: str) -> None:
    column = syscalls.COLUMN[machine]
    refused = {numbers[column] for numbers in syscalls.REFUSED.values()}
    conditional = {numbers[column] for numbers in syscalls.CONDITIONAL.values()}
    for number in range(syscalls.LAST_REVIEWED + 1):
        if number not in conditional:
            assert judge(machine, number) == (EPERM if number in refused else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed_and_the_future_does_not_exist(machine: str) -> None:
    assert judge(machine, 0, arch=0x4000_0003) == KILL  # AUDIT_ARCH_I386
    assert judge(machine, syscalls.LAST_REVIEWED + 1) == ENOSYS
    assert judge(machine, 0xFFFF_FFFF) in (EPERM, ENOSYS)


def test_x32_calls_are_refused() -> None:
    assert judge("x86_64", 0x4000_0000) == EPERM
    assert judge("x86_64", 0x4000_0000 | 59) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_are_allowed_for_harmless_arguments_alone(machine: str) -> None:
    thread, namespace = 0x3D0F00, 0x1000_0000
    stream, datagram, flags = 1, 2, 0o2000000 | 0o4000
    for expected, name, *arguments in (
        (ENOSYS, "clone3"),
        (ALLOW, "clone", thread),
        (EPERM, "clone", thread | namespace),
        (ALLOW, "kill", PID, 15),
        (EPERM, "kill", 1, 0),
        (EPERM, "kill", -1, 9),
        (EPERM, "kill", 0, 9),
        (ALLOW, "tgkill", PID, PID, 6),
        (EPERM, "tgkill", PID + 1, PID + 1, 6),
        (ALLOW, "prlimit64", 0, 7),
        (ALLOW, "prlimit64", PID, 7),
        (EPERM, "prlimit64", 1, 7),
        (ALLOW, "socketpair", 1, stream | flags),
        (EPERM, "socketpair", 1, datagram | flags),
        (EPERM, "socketpair", 1, 3),
        (EPERM, "socketpair", 2, stream),
        (ALLOW, "sendto", 5, 1, 1, 0, 0, 0),
        (EPERM, "sendto", 5, 1, 1, 0, 0x7FFF_0000_0000, 16),
        (EPERM, "sendto", 5, 1, 1, 0, 0x1000, 16),
        (ALLOW, "listen", 3, 100),
        (EPERM, "listen", 4, 100),
        (ALLOW, "prctl", 15),
        (EPERM, "prctl", 4, 1),
        (ALLOW, "fcntl", 5, 4),
        (EPERM, "fcntl", 5, 8),
        (EPERM, "fcntl", 5, 15),
        (ALLOW, "ioctl", 5, 0x5401),
        (EPERM, "ioctl", 5, 0x5412),
        (EPERM, "ioctl", 5, 0xFFFF_FFFF_0000_5412),  # the kernel looks at the low half alone, and so do we
    ):
        assert call(machine, str(name), *map(int, arguments)) == expected, (name, arguments)


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_the_program_always_ends_in_one_of_four_answers(
    machine: str, number: int, arguments: list[int]
) -> None:
    assert judge(machine, number, *arguments) in (ALLOW, KILL, EPERM, ENOSYS)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="this header is of x86_64")
def test_the_numbers_are_those_of_the_kernels_header() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    ours = {name: numbers[0] for name, numbers in (syscalls.REFUSED | syscalls.CONDITIONAL).items()}
    assert {
        name: number for name, number in ours.items() if str(number) != known.get(name, str(number))
    } == {}


def test_the_generic_numbers_are_those_of_the_kernels_header() -> None:
    header = Path("/usr/include/asm-generic/unistd.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    known = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    ours = {name: numbers[1] for name, numbers in (syscalls.REFUSED | syscalls.CONDITIONAL).items()}
    wrong = {n: v for n, v in ours.items() if v is not None and known.get(n, v) != v}
    # A call that has a generic number must not be passed over on aarch64.
    assert wrong == {}
    assert [name for name, number in ours.items() if number is None and name in known] == []

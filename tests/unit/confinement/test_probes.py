"""Every probe fails in a process that is not confined: the positive control of what a confined one reports."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.confinement import libc, probes
from inference.confinement.properties import MEANINGS, Property, PropertyError


@pytest.mark.parametrize(
    ("probe", "prop"),
    [
        (probes.verify_no_new_privileges, Property.NEW_PRIVILEGES),
        (probes.verify_not_dumpable, Property.DUMPABLE),
        (probes.verify_cannot_read, Property.READ),
        (probes.verify_filter, Property.SECCOMP),
        (probes.verify_cannot_make_sockets, Property.SOCKETS),
        (probes.verify_cannot_connect, Property.CONNECT),
        (probes.verify_cannot_signal, Property.SIGNAL),
        (probes.verify_cannot_execute, Property.EXEC),
        (probes.verify_no_shared_memory, Property.SHARED_MEMORY),
    ],
)
def test_an_unconfined_process_is_found_out(probe: Callable[[], None], prop: Property) -> None:
    with pytest.raises(PropertyError) as caught:
        probe()
    assert caught.value.prop is prop


@pytest.mark.skipif(os.geteuid() != 0, reason="only root holds capabilities")
def test_held_capabilities_are_found_out() -> None:
    with pytest.raises(PropertyError, match="capabilities"):
        probes.verify_no_capabilities()


def test_a_possible_core_dump_is_found_out() -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("the limit is already zero for good")
    with pytest.raises(PropertyError, match="core_dumps"):
        probes.verify_no_core_dumps()


def test_a_writable_folder_and_a_writable_file_are_found_out(tmp_path: Path) -> None:
    with pytest.raises(PropertyError, match="write"):
        probes.verify_cannot_write([tmp_path], [])
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PropertyError, match="write"):
        probes.verify_cannot_write([], [file])
    assert file.read_bytes() == b""


def test_swap_is_found_out_by_its_second_line() -> None:
    heading = "Filename\tType\tSize\tUsed\tPriority\n"
    probes.verify_no_swap(heading)
    for text in (heading + "/dev/sda2 partition 1 0 -2\n", ""):
        with pytest.raises(PropertyError, match=r"^swap: "):
            probes.verify_no_swap(text)


def test_a_second_thread_is_found_out() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(PropertyError, match="single_thread"):
            probes.verify_single_thread()
    finally:
        done.set()
        thread.join()


def test_a_stray_and_a_missing_descriptor_are_found_out(tmp_path: Path) -> None:
    def listing() -> int:
        return os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)

    now = frozenset(int(name) for name in os.listdir("/proc/self/fd"))
    now = frozenset(number for number in now if _is_open(number))
    probes.verify_descriptors(now, listing())
    with open(tmp_path / "stray", "wb") as stray:
        with pytest.raises(PropertyError, match="descriptors"):
            probes.verify_descriptors(now - {stray.fileno()}, listing())
    with pytest.raises(PropertyError, match="descriptors"):
        probes.verify_descriptors(now | {999}, listing())


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.mark.lab
@pytest.mark.parametrize(
    ("interface", "verdict"),
    [
        ([], "closed"),
        (["ip link set lo up"], "closed"),  # systemd's PrivateNetwork=yes brings it up
        (["ip tuntap add dev appl0 mode tun"], "closed"),  # like sit0: there, but down
        (["ip tuntap add dev appl0 mode tun", "ip link set appl0 up"], "open"),
        (["ip link set lo up", "ip route add default dev lo"], "open"),
    ],
)
def test_a_way_out_of_a_network_namespace_is_found_out(interface: list[str], verdict: str) -> None:
    code = """
import subprocess, sys
from inference.confinement import libc, probes
from inference.confinement.properties import PropertyError
libc.unshare(libc.CLONE_NEWNET)
for command in sys.argv[1:]:
    subprocess.run(command.split(), check=True)
try:
    probes.verify_no_way_out()
    print("closed")
except PropertyError:
    print("open")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *interface], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == verdict


def test_every_property_has_a_meaning_and_a_hint() -> None:
    assert set(MEANINGS) == set(Property)
    assert all(meaning and hint for meaning, hint in MEANINGS.values())


def test_a_call_that_fails_raises_with_the_kernels_number() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        libc.prctl(0x7FFF_FFFF)

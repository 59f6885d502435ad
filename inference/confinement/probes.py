"""Each property of a confined process, tried: `verify_` returns None or raises a `PropertyError` that names the property.

A probe asks for what must be refused and looks at the kernel's answer. None of them does harm where the answer is
wrong: the file it asks for is nameless where the file system can do that, the program does not exist, the signal is 0.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

from inference.confinement import libc, syscalls
from inference.confinement.properties import Property, PropertyError

_DENIED = (errno.EPERM, errno.EACCES)
_NOT_THERE = (*_DENIED, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EOPNOTSUPP)

WRITABLE_ELSEWHERE = tuple(map(Path, ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock")))  # noqa: S108
_FORBIDDEN_FILES = (
    "/etc/passwd",
    "/etc/shadow",
    "/proc/1/environ",
    "/proc/self/environ",
    "/proc/self/mem",
    "/",
)
_NO_SUCH_PROGRAM = "/nonexistent/appliance-probe"
_FAMILIES = {
    "unix": 1,
    "inet": 2,
    "inet6": 10,
    "netlink": 16,
    "packet": 17,
    "alg": 38,
    "vsock": 40,
}  # linux/socket.h
_UNUSED_KEY = 0x5A1E_CE11
_IMPROBABLE_PID = 2**22 - 1  # PID_MAX_LIMIT - 1: were signals allowed, the answer would be ESRCH


def _verify_refused(
    prop: Property,
    attempt: Callable[..., object],
    errors: tuple[int | None, ...] = _DENIED,
    arguments: tuple[object, ...] = (),
) -> None:
    try:
        attempt(*arguments)
    except OSError as error:
        if error.errno in errors:
            return
    raise PropertyError(prop)


def _open(path: Path | str, flags: int) -> None:
    os.close(os.open(path, flags, 0o600))


def _make_socket(family: int) -> None:
    socket.socket(family, socket.SOCK_DGRAM).close()


def _verify_call_refused(prop: Property, name: str, *arguments: int) -> None:
    number = syscalls.REFUSED[name][syscalls.COLUMN[syscalls.machine()]]
    if number is not None:
        _verify_refused(prop, lambda: libc.syscall(number, *arguments), (errno.EPERM,))


def verify_single_thread() -> None:
    """Only one thread runs: Landlock restricts the calling thread and its children alone."""
    if len(os.listdir("/proc/self/task")) != 1:
        raise PropertyError(Property.SINGLE_THREAD)


def verify_no_swap(swaps: str) -> None:
    """No swap area is on.

    Args:
        swaps: Text of /proc/swaps (proc_swaps(5)): a heading, then one line for each area.
    """
    if len(swaps.splitlines()) != 1:
        raise PropertyError(Property.SWAP)


def verify_no_way_out() -> None:
    """This network namespace leads nowhere: nothing but loopback is up and no address can be routed to.

    Interfaces such as `sit0` exist in every namespace once their module is loaded; they are down. Connecting a
    datagram socket sends nothing. Addresses: RFC 5737 and RFC 3849 (documentation).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _index, name in socket.if_nameindex():
            request = struct.pack("16s24x", name.encode())
            flags = struct.unpack_from("H", ioctl(probe, 0x8913, request), 16)[
                0
            ]  # SIOCGIFFLAGS, netdevice(7)
            if flags & 1 and name != "lo":  # IFF_UP
                raise PropertyError(Property.NETWORK_NAMESPACE)
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            raise PropertyError(Property.NETWORK_NAMESPACE)


def verify_no_core_dumps() -> None:
    """The limit is zero and cannot be raised again."""
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        raise PropertyError(Property.CORE_DUMPS)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (ValueError, OSError):  # Python turns EPERM into ValueError here
        return
    raise PropertyError(Property.CORE_DUMPS)


def verify_no_new_privileges() -> None:
    """No program that it could start would have more privileges (PR_SET_NO_NEW_PRIVS(2const))."""
    if libc.prctl(libc.PR_GET_NO_NEW_PRIVS) != 1:
        raise PropertyError(Property.NEW_PRIVILEGES)


def verify_not_dumpable() -> None:
    """Nobody of the same uid can trace it, nor can it make itself traceable again."""
    if libc.prctl(libc.PR_GET_DUMPABLE) != 0:
        raise PropertyError(Property.DUMPABLE)
    _verify_refused(Property.DUMPABLE, lambda: libc.prctl(libc.PR_SET_DUMPABLE, 1))


def verify_no_capabilities() -> None:
    """No capability is held, not even those that a new user namespace gives."""
    if libc.held_capabilities():
        raise PropertyError(Property.CAPABILITIES)


def verify_cannot_write(folders: Iterable[Path], files: Iterable[Path]) -> None:
    """No file can be made or opened for writing.

    Args:
        folders: Where making one is tried, first without a name (O_TMPFILE), then with one.
        files: Existing files that are tried to be opened for writing.
    """
    for folder in folders:
        named = folder / f".appliance-probe-{os.getpid()}"
        for path, flags in (
            (folder, os.O_TMPFILE | os.O_RDWR),
            (named, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        ):
            _verify_refused(Property.WRITE, _open, _NOT_THERE, (path, flags))
    for file in files:
        _verify_refused(Property.WRITE, _open, _NOT_THERE, (file, os.O_WRONLY))


def verify_cannot_read() -> None:
    """Files outside the list cannot be opened, the cell's own environment and memory file among them."""
    for path in _FORBIDDEN_FILES:
        _verify_refused(Property.READ, _open, (*_DENIED, errno.ENOENT), (path, os.O_RDONLY))


def verify_cannot_make_sockets() -> None:
    """No socket of any family, and no datagram pair, which could send to a path."""
    for family in _FAMILIES.values():
        _verify_refused(Property.SOCKETS, _make_socket, _DENIED, (family,))
    _verify_refused(Property.SOCKETS, lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))


def verify_cannot_connect() -> None:
    """A socket that it may have (a stream pair) can be neither connected, bound nor listened on."""
    left, right = socket.socketpair()
    with left, right:
        _verify_refused(Property.CONNECT, lambda: left.connect("/run/systemd/journal/stdout"))
        _verify_refused(Property.CONNECT, lambda: left.bind(b"\0appliance-probe"))
        _verify_refused(Property.CONNECT, lambda: left.listen(1))


def verify_cannot_signal() -> None:
    """Its parent, process 1, everybody at once and a process that is not there: each is refused alike."""
    for pid in (os.getppid(), 1, -1, _IMPROBABLE_PID):
        if pid not in (0, os.getpid()):
            _verify_refused(Property.SIGNAL, os.kill, _DENIED, (pid, 0))
    _verify_refused(Property.SIGNAL, lambda: signal.pidfd_send_signal(0, 0), (errno.EPERM,))


def verify_cannot_execute() -> None:
    """EPERM comes before the path is looked at; ENOENT would mean that a path that exists is executed."""
    _verify_refused(Property.EXEC, lambda: os.execv(_NO_SUCH_PROGRAM, ["probe"]), (errno.EPERM,))  # noqa: S606


def verify_no_shared_memory() -> None:
    """Neither a memory file nor a System V segment: the latter would outlive the process."""
    _verify_refused(Property.SHARED_MEMORY, lambda: os.memfd_create("probe"))
    for name in ("shmget", "msgget", "semget", "keyctl"):
        # No flag to make one, and a key that nobody uses: ENOENT where the call is allowed.
        _verify_call_refused(Property.SHARED_MEMORY, name, _UNUSED_KEY, 0, 0)


def verify_filter() -> None:
    """The filter is in force: reading the execution domain (personality(2)), which always succeeds, is refused."""
    _verify_call_refused(Property.SECCOMP, "personality", 0xFFFF_FFFF)


def verify_descriptors(expected: frozenset[int], listing: int) -> None:
    """Exactly the expected descriptors are open.

    Args:
        expected: Without `listing`.
        listing: Descriptor of /proc/self/fd, opened before confinement; closed here.
    """
    try:
        open_now = {int(name) for name in os.listdir(listing)} - {listing}
        # listdir works on a duplicate, which is gone again: what is not open any more does not count.
        stray = {number for number in open_now - expected if _is_open(number)}
    finally:
        os.close(listing)
    if stray or not expected <= open_now:
        raise PropertyError(Property.DESCRIPTORS)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

"""Confinement of the cell: apply every mechanism, then try every property.

    1. network      an empty network namespace of its own, where one can be had
    2. capabilities none, also none of those that a new namespace gave
    3. limits       no core dumps, no new privileges
    4. tracing      not dumpable: nobody of its uid can read its memory
    5. files        Landlock: read a short list, write nothing
    6. calls        seccomp: no sockets, no exec, no signals to others, nothing newer than was reviewed
    7. probes       each property is tried; one that does not hold raises a `PropertyError` that names it

Steps 4 to 6 do not survive execve(2) as they should (it makes a process dumpable again), so the cell is imported and
called in this very process; no other program is executed. Standard library only.
"""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference.confinement import landlock, libc, places, probes, seccomp
from inference.confinement.properties import Property, PropertyError


@dataclass(frozen=True)
class Kept:
    """What kept the process confined; `appliance.core.receipt.Confinement` says the same to a client."""

    landlock_abi: int
    network: Literal["namespace", "seccomp"]


@dataclass(frozen=True)
class View:
    """What the confined process may see.

    Attributes:
        readable: Folders and files beside Python's own code.
        descriptors: The descriptors that must be open, and no other.
        in_namespace: It was started in a network namespace of its own.
    """

    readable: tuple[Path, ...]
    descriptors: frozenset[int]
    in_namespace: bool


class Confiner:
    """The mechanisms, one method each, so that a test can leave exactly one out."""

    def __init__(self, view: View) -> None:
        self.view = view

    def confine(self) -> Kept:
        """Confine this process for good and try every property.

        Raises:
            PropertyError: The property that does not hold. The process must then end without serving.
        """
        swaps = Path("/proc/swaps").read_text("ascii")
        parent = os.getppid()
        probes.verify_single_thread()
        network = self.leave_network()
        self.drop_capabilities()
        self.forbid_core_dumps()
        self.forbid_new_privileges()
        self.forbid_tracing()
        self.die_with(parent)
        listing = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        abi = self.restrict_files()
        self.filter_calls()
        self.verify(swaps, listing)
        return Kept(abi, network)

    def leave_network(self) -> Literal["namespace", "seccomp"]:
        """Be in a network namespace that leads nowhere, if that can be had; the filter holds in any case."""
        if not self.view.in_namespace:
            for flags in (libc.CLONE_NEWNET, libc.CLONE_NEWUSER | libc.CLONE_NEWNET):
                try:
                    libc.unshare(flags)
                    break
                except OSError:  # no privilege, no user namespaces, or none left
                    continue
            else:
                return "seccomp"
        probes.verify_no_way_out()
        return "namespace"

    def drop_capabilities(self) -> None:
        """Give up every capability."""
        libc.drop_capabilities()

    def forbid_core_dumps(self) -> None:
        """Set the limit to zero, for good: raising it again needs a capability."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def forbid_new_privileges(self) -> None:
        """No program gives it privileges; without this the kernel takes neither of the next two mechanisms."""
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)

    def forbid_tracing(self) -> None:
        """Make the process non-dumpable; also no core is then piped to a helper, which RLIMIT_CORE allows (core(5))."""
        libc.prctl(libc.PR_SET_DUMPABLE, 0)

    def die_with(self, parent: int) -> None:
        """Never outlive whoever started it. Set here because a change of credentials clears it (prctl(2))."""
        libc.prctl(libc.PR_SET_PDEATHSIG, 9)
        if os.getppid() != parent:
            os._exit(0)  # it died before the line above

    def restrict_files(self) -> int:
        """Put Landlock in force and return its ABI."""
        abi = landlock.observe_abi()
        if abi < landlock.REQUIRED_ABI:
            raise PropertyError(Property.LANDLOCK)
        try:
            landlock.apply_restrictions(places.readable(*self.view.readable), abi)
        except OSError as error:
            raise PropertyError(Property.LANDLOCK) from error
        return abi

    def filter_calls(self) -> None:
        """Put the system call filter in force."""
        try:
            seccomp.apply_filter()
        except OSError as error:
            raise PropertyError(Property.SECCOMP) from error

    def verify(self, swaps: str, listing: int) -> None:
        """Try every property."""
        probes.verify_no_swap(swaps)
        probes.verify_no_new_privileges()
        probes.verify_no_core_dumps()
        probes.verify_not_dumpable()
        probes.verify_no_capabilities()
        folders = [p for p in self.view.readable if p.is_dir()]
        files = [entry for folder in folders for entry in _regular_files(folder)]
        probes.verify_cannot_write((*probes.WRITABLE_ELSEWHERE, *folders), files)
        probes.verify_cannot_read()
        probes.verify_filter()
        probes.verify_cannot_make_sockets()
        probes.verify_cannot_connect()
        probes.verify_cannot_signal()
        probes.verify_cannot_execute()
        probes.verify_no_shared_memory()
        probes.verify_descriptors(self.view.descriptors, listing)


def _regular_files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError as error:
        if error.errno == errno.EACCES:
            return []
        raise

"""What keeps a cell confined: the kernel, its mechanisms, and a rehearsal that tries them all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from appliance.doctor.finding import Finding, Status, judge
from inference.confinement import landlock, libc, syscalls
from inference.confinement.properties import MEANINGS, Property

_REHEARSAL_TIMEOUT_S = 20


def observe_confinement() -> list[Finding]:
    """Return the findings that decide whether a cell can be confined here."""
    return [_kernel(), _architecture(), _landlock(), _seccomp(), _network(), _users(), _rehearsal()]


def _kernel() -> Finding:
    release = os.uname().release
    version = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    return Finding(
        "kernel",
        release,
        "5.19",
        judge(version >= (5, 19), Status.FAIL),
        "older kernels cannot keep a cell from linking and renaming files",
        "install a kernel of Debian 12, Ubuntu 24.04 or later",
    )


def _architecture() -> Finding:
    machine = os.uname().machine
    return Finding(
        "architecture",
        machine,
        " or ".join(syscalls.COLUMN),
        judge(machine in syscalls.COLUMN, Status.FAIL),
        "the system call filter knows the numbers of these alone",
        "use a machine of one of them",
    )


def _landlock() -> Finding:
    abi = landlock.observe_abi()
    return Finding(
        "landlock ABI",
        abi,
        landlock.REQUIRED_ABI,
        judge(abi >= landlock.REQUIRED_ABI, Status.FAIL),
        "keeps a cell from every file but a short read-only list",
        MEANINGS[Property.LANDLOCK][1],
    )


def _seccomp() -> Finding:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    return Finding(
        "seccomp",
        "filters" if "errno" in actions else "none",
        "filters",
        judge("errno" in actions, Status.FAIL),
        "keeps a cell from sockets, other programs and other processes",
        MEANINGS[Property.SECCOMP][1],
    )


def _network() -> Finding:
    able = _can_unshare(libc.CLONE_NEWNET) or _can_unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNET)
    return Finding(
        "network namespaces",
        "yes" if able else "no",
        "yes",
        judge(able, Status.WARN),
        "an empty one around each cell; without it the filter alone keeps it off the network",
        "run the launcher as root, or allow user namespaces",
    )


def _users() -> Finding:
    able = _can_unshare(libc.CLONE_NEWUSER)
    return Finding(
        "user namespaces",
        "yes" if able else "no",
        "yes",
        judge(able, Status.WARN),
        "needed only where cells are started without root (`appliance demo --local`)",
        "sysctl user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns",
    )


def _can_unshare(flags: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            libc.unshare(flags)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _rehearsal() -> Finding:
    verdict = rehearse()
    word, _, rest = verdict.partition(" ")
    hint = (
        MEANINGS[Property(rest)][1] if word == "refused" and rest in set(Property) else "see the rows above"
    )
    return Finding(
        "rehearsal",
        verdict,
        "confined",
        judge(word == "confined", Status.FAIL),
        "a process was confined as a cell is, and every property was tried",
        hint,
    )


def rehearse(module: str = "inference.confinement.rehearse") -> str:
    """Confine a child as a cell would be; return its verdict, empty if it gave none."""
    try:
        done = subprocess.run(
            [sys.executable, "-s", "-P", "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_REHEARSAL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode("ascii", "replace").strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""

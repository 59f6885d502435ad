"""What a process holds in memory (proc_pid_status(5)), and how long it had a processor (proc_pid_stat(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

from appliance.core.errors import HostError


def peak_bytes(pid: int) -> int:
    """Return the largest resident set that a process had so far.

    Mapped weights count, for our server as for the other; what both share through the page cache cancels in
    differences.

    Raises:
        HostError: If there is no such process.
    """
    return parse_peak(_read(pid, "status"))


def parse_peak(status: str) -> int:
    """Return VmHWM of a status file, in bytes.

    Raises:
        HostError: If it is not there: the process has ended.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise HostError("a server under measurement is gone")
    return int(found[1]) * 1024


def cpu_s(pid: int) -> float:
    """Return the processor time that a process took so far, all threads, in seconds.

    Raises:
        HostError: If there is no such process.
    """
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("utf-8")
    except OSError as error:
        raise HostError("a server under measurement is gone") from error

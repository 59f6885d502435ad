"""What a process holds in memory (proc_pid_status(5))."""

from __future__ import annotations

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
    return parse_peak(_status(pid))


def parse_peak(status: str) -> int:
    """Return VmHWM of a status file, in bytes.

    Raises:
        HostError: If it is not there: the process has ended.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise HostError("a server under measurement is gone")
    return int(found[1]) * 1024


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError as error:
        raise HostError("a server under measurement is gone") from error

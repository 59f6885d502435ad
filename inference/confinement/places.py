"""Where Python's code lies on this machine: what a cell must be able to read, and nothing more.

Paths differ between a distribution's Python, a virtual environment and an editable installation; all are found here.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

# Public files that the dynamic linker, the C library, OpenMP and ggml look at (found with strace(1)). Not here:
# /proc/stat and /proc/meminfo, which show the work of other clients' cells.
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/cpuinfo",
    "/proc/sys/kernel/random/boot_id",
    "/sys/devices/system/cpu",
    "/dev/urandom",
)
_OWN_PACKAGES = ("appliance", "inference", "rag")
_INSTALLATION = Path(__file__).resolve().parents[2]


def code_folders() -> tuple[Path, ...]:
    """Return the folders that modules are imported from."""
    found = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [Path(entry) for entry in sys.path if os.path.isabs(entry)]
    found += [_INSTALLATION / package for package in _OWN_PACKAGES]
    return tuple(dict.fromkeys(folder for folder in found if folder.exists() and folder != _INSTALLATION))


def interpreter_folders() -> tuple[Path, ...]:
    """Return what must be visible for the interpreter to start and import: its prefixes and the code folders."""
    prefixes = (Path(sys.base_prefix), Path(sys.prefix))
    return tuple(dict.fromkeys((*prefixes, *code_folders())))


def readable(*more: Path) -> tuple[Path, ...]:
    """Return all that a cell may read: code, public system files, this process's status, and `more`."""
    own = Path(f"/proc/{os.getpid()}/status")
    return (*code_folders(), *(Path(entry) for entry in _SYSTEM), own, *more)

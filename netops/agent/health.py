"""The node's health as numbers (docs/spec/node-protocols.md section 1.2). Nothing here is about any request."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from appliance.core.errors import ApplianceError
from appliance.core.node import NodePaths
from netops.agent.gpus import observe_gpus
from netops.services import Cells, Notary

_NOTARY_FIGURES = ("records", "waiting", "bytes", "max_bytes")


def observe_health(paths: NodePaths, cells: Cells, notary: Notary) -> dict[str, Any]:
    """Return the part of the health report that needs no knowledge of bundles. Waits for no other operation."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(paths.var))
    return {
        "uptime_s": int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        "cells": _cells(cells),
        "seats": {"total": len(_seats(paths.seats)), "taken": taken_seats(paths.seats)},
        "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
        "swap": psutil.swap_memory().total > 0,
        "load": [int(load * 1000) for load in os.getloadavg()],
        "disk": {"total_bytes": disk.total, "free_bytes": disk.free},
        "gpus": observe_gpus(),
        "notary": _notary(notary),
        "clock": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
    }


def taken_seats(folder: Path) -> int:
    """Count seats that a cell holds, from the kernel's list of locks.

    Trying to lock them would answer too, but a cell that looks for a seat in that moment would find none.
    """
    # proc_locks(5): "1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF", major and minor in hexadecimal.
    locked = set()
    for line in Path("/proc/locks").read_text("ascii").splitlines():
        fields = line.split()
        if "FLOCK" in fields and "->" not in fields:
            locked.add(fields[5])
    return sum(_lock_name(seat) in locked for seat in _seats(folder))


def _seats(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _lock_name(path: Path) -> str:
    status = path.stat()
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"


def _cells(cells: Cells) -> list[dict[str, Any]]:
    try:
        running = cells.running()
    except (ApplianceError, OSError):
        return []
    return [{"client": cell.client, "pid": cell.pid, "rss_bytes": cell.rss_bytes} for cell in running]


def _notary(notary: Notary) -> dict[str, Any]:
    try:
        status = notary.status()
        return {"up": True, **{name: int(status[name]) for name in _NOTARY_FIGURES}}
    except (ApplianceError, OSError, KeyError):
        return {"up": False, **dict.fromkeys(_NOTARY_FIGURES, 0)}

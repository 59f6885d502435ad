"""The node's health as numbers (docs/spec/node-protocols.md section 1.2). Nothing here is about any request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from appliance.core.errors import ApplianceError
from appliance.core.health import CONNECTED_S, STEP_S
from appliance.core.node import NodePaths
from netops.agent.gpus import observe_gpus
from netops.services import Cells, Notary
from netops.tunnel import Observed
from netops.wireguard import PeerStatus

_NOTARY_FIGURES = {
    "records": "records",
    "sessions": "open",
    "waiting": "waiting",
    "bytes": "bytes",
    "max_bytes": "max_bytes",
}


def observe_host(paths: NodePaths) -> dict[str, Any]:
    """Return what the operating system says of the machine."""
    memory = psutil.virtual_memory()
    return {
        "uptime_s": int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        "cores": psutil.cpu_count() or 1,
        "load": [int(load * 1000) for load in os.getloadavg()],
        "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
        "swap": psutil.swap_memory().total > 0,
        "disks": _disks(paths),
        "temperature_c": _temperature(),
        "gpus": observe_gpus(),
    }


def observe_serving(paths: NodePaths, cells: Cells, notary: dict[str, Any]) -> dict[str, Any]:
    """Return who serves: cells, seats, what waits for them; and the notary, given its status."""
    return {
        "cells": _cells(cells),
        "seats": {"total": len(_seats(paths.seats)), "taken": taken_seats(paths.seats)},
        "queue": waiting_connections(paths.clients),
        "notary": {"up": bool(notary)}
        | {name: int(notary.get(source, 0)) for name, source in _NOTARY_FIGURES.items()},
    }


def ask_notary(notary: Notary) -> dict[str, Any]:
    """Return the notary's status, nothing if it does not answer."""
    try:
        return notary.status()
    except (ApplianceError, OSError):
        return {}


def summarise_tunnel(tunnel: Observed, now_s: int) -> dict[str, Any]:
    """Return the interface's state, and how many peers are connected, stale and never seen. Pure."""
    ages = [_age(status, now_s) for status in tunnel.peers]
    connected = sum(age is not None and age < CONNECTED_S for age in ages)
    never_seen = sum(age is None for age in ages)
    return {
        "kind": tunnel.kind,
        "up": tunnel.interface is not None and tunnel.interface.up,
        "connected": connected,
        "stale": len(ages) - connected - never_seen,
        "never_seen": never_seen,
    }


def sort_peers(peers: Iterable[PeerStatus], now_s: int) -> dict[str, Any]:
    """Return who is connected, by the time for which that can still be said, and who is stale. Pure."""
    fresh: dict[int, list[str]] = {}
    stale: list[str] = []
    for status in peers:
        age = _age(status, now_s)
        if age is None:
            continue
        if age >= CONNECTED_S:
            stale.append(status.peer.public_key)
        else:
            fresh.setdefault((CONNECTED_S - age) // STEP_S * STEP_S, []).append(status.peer.public_key)
    return {
        "connected": [{"left_s": left, "public_keys": sorted(fresh[left])} for left in sorted(fresh)],
        "stale": sorted(stale),
    }


def now_text() -> str:
    """Return the wall clock as a timestamp's text."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


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


def waiting_connections(clients: Path) -> int:
    """Count connections to cells that no cell has accepted, from the kernel's list of Unix sockets."""
    # proc(5), /proc/net/unix: "<address>: <references> <protocol> <flags> <type> <state> <inode> <path>". A connection has the
    # listener's path; until it is accepted there is no socket behind it, and its state is SS_CONNECTING.
    waiting = 0
    with open("/proc/net/unix", "rb") as table:
        for line in table:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[5] == b"02":
                path = Path(os.fsdecode(fields[7].rstrip(b"\n")))
                waiting += path.name == "http.sock" and path.parent.parent == clients
    return waiting


def is_confined(pid: int) -> bool:
    """Return whether the kernel shows a process with a system call filter, no new privileges and no capability."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return False
    facts = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    capabilities = (facts.get(name, "1") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    filtered = (facts.get("Seccomp"), facts.get("NoNewPrivs")) == ("2", "1")
    return filtered and not any(int(mask, 16) for mask in capabilities)


def _age(status: PeerStatus, now_s: int) -> int | None:
    """Return the age of a peer's last handshake in seconds; None if there was none. A clock that was set back makes none negative."""
    return max(0, now_s - status.handshake_at_s) if status.handshake_at_s else None


def _disks(paths: NodePaths) -> list[dict[str, Any]]:
    """Return each file system once."""
    named = {"root": paths.root, "state": paths.var, "models": paths.models, "receipts": paths.notary}
    disks: dict[int, dict[str, Any]] = {}
    for name, path in named.items():
        if path.exists() and (device := path.stat().st_dev) not in disks:
            usage = psutil.disk_usage(str(path))
            # What root keeps back is no use to the notary, which runs as a user.
            disks[device] = {"name": name, "total_bytes": usage.used + usage.free, "free_bytes": usage.free}
    return list(disks.values())


def _temperature() -> int | None:
    readings = [sensor.current for kind in psutil.sensors_temperatures().values() for sensor in kind]
    return int(max(readings)) if readings else None


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
    return [
        {
            "client": cell.client,
            "pid": cell.pid,
            "rss_bytes": cell.rss_bytes,
            "confined": is_confined(cell.pid),
        }
        for cell in running
    ]

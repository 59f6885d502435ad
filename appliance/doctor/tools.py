"""What a node and the lab need installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from pathlib import Path

from appliance.doctor.finding import Finding, Status, judge

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))
_NEEDED = {
    "nft": ("drops everything that is not an authenticated peer", "apt install nftables"),
    "nginx": ("ends TLS inside the tunnel and passes requests to cells", "apt install nginx-light"),
    "sshd": ("control reaches the node through it", "apt install openssh-server"),
}


def observe_tools() -> list[Finding]:
    """Return what is installed and what is missing."""
    programs = [_program(name, *told) for name, told in _NEEDED.items()]
    return [_wireguard(), *programs, _overlay(), _loop(), _engine()]


def find_tool(name: str) -> str | None:
    """Return a program's path, also from the folders that only root has in its PATH."""
    return shutil.which(name, path=_PATH)


def _program(name: str, meaning: str, hint: str) -> Finding:
    found = find_tool(name)
    return Finding(
        name, found or "missing", "installed", judge(found is not None, Status.FAIL), meaning, hint
    )


def _wireguard() -> Finding:
    meaning = "the only way in; in user space it is slower"
    hint = "boot a kernel with WireGuard, or: apt install wireguard-go wireguard-tools; modprobe tun"
    if find_tool("wg") is None:
        return Finding(
            "WireGuard", "no wg tool", "kernel", Status.FAIL, meaning, "apt install wireguard-tools"
        )
    if _in_kernel("wireguard"):
        return Finding("WireGuard", "kernel", "kernel", Status.OK, meaning)
    if find_tool("wireguard-go") and os.path.exists("/dev/net/tun"):
        return Finding("WireGuard", "wireguard-go", "kernel", Status.WARN, meaning, hint)
    return Finding("WireGuard", "missing", "kernel", Status.FAIL, meaning, hint)


def _in_kernel(module: str) -> bool:
    """Return whether a module is loaded, built in, or there to be loaded (modules.dep(5))."""
    if os.path.isdir(f"/sys/module/{module}"):
        return True
    folder = Path("/lib/modules") / os.uname().release
    return any(f"/{module}.ko" in _read(folder / name) for name in ("modules.builtin", "modules.dep"))


def _overlay() -> Finding:
    there = "\toverlay\n" in _read(Path("/proc/filesystems")) or _in_kernel("overlay")
    meaning, hint = "the lab's machines share this system's files", "modprobe overlay"
    return Finding("overlayfs", "yes" if there else "no", "yes", judge(there, Status.WARN), meaning, hint)


def _loop() -> Finding:
    there = os.path.exists("/dev/loop-control")
    meaning, hint = "the lab puts a disk under a node to look for content on it", "modprobe loop"
    return Finding("loop devices", "yes" if there else "no", "yes", judge(there, Status.WARN), meaning, hint)


def _engine() -> Finding:
    pinned = _pinned_version("llama-cpp-python")
    try:
        found = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        found = "missing"
    meaning = "the engine; a model is served by the version that its pin names"
    hint = "run provisioning/setup.sh"
    return Finding("llama-cpp-python", found, pinned, judge(found == pinned, Status.FAIL), meaning, hint)


def _pinned_version(package: str) -> str:
    for requirement in importlib.metadata.requires("sovereign-appliance") or []:
        if match := re.match(rf"{re.escape(package)}==([0-9.]+)", requirement):
            return match[1]
    return "?"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""

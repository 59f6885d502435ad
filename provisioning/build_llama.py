"""Builds llama-cpp-python for this machine's processor, with a progress bar, and installs it. Standard library only.

The wheel is kept in the user's cache under a name that says version, interpreter and processor features, since a
native build must never run on another processor. The source is the locked one: pip checks its hash.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOCK = Path(__file__).parent / "locks" / "llama.txt"
# No RPC backend (unauthenticated, no erase), no image input, and no web download in a product that has no network.
CMAKE_ARGS = "-DLLAVA_BUILD=OFF -DGGML_RPC=OFF -DLLAMA_CURL=OFF"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
BAR = 40


def main() -> int:
    """Install the locked llama-cpp-python, building it only if it was not built here before."""
    version = re.search(r"^llama-cpp-python==(\S+)", LOCK.read_text("utf-8"), re.MULTILINE)
    if version is None:
        raise SystemExit(f"setup: no llama-cpp-python in {LOCK}")
    if installed() == version[1]:
        return 0
    cache = cache_folder(version[1])
    if not list(cache.glob("*.whl")):
        cache.mkdir(parents=True, exist_ok=True)
        build(cache)
    (wheel,) = cache.glob("*.whl")
    return subprocess.call([*PIP, "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel)])


def installed() -> str | None:
    """Return the installed version, None if there is none."""
    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return None


def cache_folder(version: str) -> Path:
    """Return where the wheel for this version, interpreter, processor and these flags is kept."""
    cpuinfo = Path("/proc/cpuinfo").read_text("utf-8")
    flags = re.search(r"^(flags|Features)\s*:.*$", cpuinfo, re.MULTILINE)
    key = f"{version} {sys.version} {CMAKE_ARGS} {flags[0] if flags else ''}"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "sovereign-appliance" / "llama" / hashlib.sha256(key.encode()).hexdigest()[:16]


def build(cache: Path) -> None:
    """Build the wheel into `cache`; on failure show the end of the compiler's output."""
    print("setup: building llama.cpp for this processor (about 10 minutes on 2 cores, once)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source = [*PIP, "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
        subprocess.run([*source, "-d", folder, "-r", str(LOCK)], check=True)
        (archive,) = Path(folder).glob("llama_cpp_python-*")
        command = [*PIP, "wheel", "--verbose", "--no-deps", "-w", str(cache), str(archive)]
        environment = {**os.environ, "CMAKE_ARGS": CMAKE_ARGS}
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        lines = follow(process)
    if process.wait():
        raise SystemExit("setup: the build failed:\n" + "".join(lines[-30:]))


def follow(process: subprocess.Popen[str]) -> list[str]:
    """Show ninja's `[n/m]` lines as a progress bar; return all lines."""
    lines: list[str] = []
    started, shown = time.monotonic(), -1
    for line in process.stdout or ():
        lines.append(line)
        step = re.match(r"\s*\[(\d+)/(\d+)\]", line)
        if step is None:
            continue
        done, total = int(step[1]), int(step[2])
        percent = done * 100 // total
        # A terminal gets a moving bar; a log gets a line for every tenth.
        if sys.stdout.isatty() or percent // 10 > shown // 10:
            bar = ("#" * (BAR * done // total)).ljust(BAR, ".")
            minutes, seconds = divmod(int(time.monotonic() - started), 60)
            end = "\r" if sys.stdout.isatty() and done < total else "\n"
            print(f"  [{bar}] {percent:3} %  {minutes}:{seconds:02}", end=end, flush=True)
        shown = percent
    return lines


if __name__ == "__main__":
    sys.exit(main())

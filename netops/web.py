"""The NGINX process: observe and apply.

It is no child of the agent: it makes itself a daemon, so that serving goes on when the agent restarts, and is found
again by its pid file and command line.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from appliance.core import malloc
from appliance.core.errors import HostError
from appliance.core.node import NodePaths
from appliance.core.storage import read_or_none, write_atomic
from netops import command
from netops.model import Web
from netops.nginx import certificate_file, nothing_file

ENVIRONMENT = {**command.ENVIRONMENT, **malloc.OVERWRITE_FREED}
"""Of NGINX, through which requests pass."""
RELOAD_S = 10.0
STOP_S = 5.0
UNIT = "nginx.service"


class WebServer:
    """NGINX with our configuration.

    Args:
        paths: The node's paths.
        services: Who starts it: `systemd` (unit nginx.service, whose drop-in names our configuration and pid file) or
            the agent itself.
    """

    def __init__(self, paths: NodePaths, services: Literal["systemd", "launcher"]) -> None:
        self._paths = paths
        self._services = services
        self._config = paths.nginx / "nginx.conf"
        self._loaded = paths.nginx / "loaded.json"

    def observe(self) -> Web:
        """Say whether our master runs, and with which configuration."""
        pid = self.pid()
        if pid is None:
            return Web()
        try:
            loaded = json.loads(read_or_none(self._loaded) or b"")
            config = (read_or_none(self._config) or b"").decode("utf-8")
            certificate = (read_or_none(Path(loaded["certificate"])) or b"").decode("utf-8")
        except (ValueError, KeyError, TypeError):
            return Web(True)
        known = loaded["pid"] == pid and loaded["digest"] == _digest(config, certificate)
        return Web(True, config, certificate) if known else Web(True)

    def pid(self) -> int | None:
        """Return the pid of our master process, None if there is none."""
        try:
            pid = int((self._paths.nginx / "nginx.pid").read_text("ascii"))
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # The pid may be another process's by now.
        ours = b"master process" in command_line and str(self._config).encode() in command_line
        return pid if ours else None

    def configure(self, config: str, certificate: str) -> None:
        """Check the configuration with nginx itself, put it in place, then start NGINX or have it read it.

        Raises:
            HostError: If nginx refuses it (the old one stays in place and in force) or does not take it up.
        """
        nothing = nothing_file(self._paths)
        if not nothing.is_file():
            write_atomic(nothing, b"", 0o400)
        pem = certificate_file(self._paths, certificate)
        write_atomic(pem, certificate.encode("ascii"), 0o644)
        candidate = self._config.with_name("nginx.conf.new")
        write_atomic(candidate, config.encode("utf-8"), 0o644)
        try:
            command.run(["nginx", "-t", "-q", "-c", str(candidate)], quote_error=True)
            candidate.replace(self._config)
        finally:
            candidate.unlink(missing_ok=True)
        self._take_up()
        loaded = {"pid": self.pid(), "digest": _digest(config, certificate), "certificate": str(pem)}
        write_atomic(self._loaded, json.dumps(loaded).encode("ascii"), 0o600)
        for old in self._paths.nginx.glob("tls-*.pem"):
            if old != pem:
                old.unlink()

    def stop(self) -> None:
        """End NGINX at once."""
        pid = self.pid()
        if pid is None:
            return
        if self._services == "systemd":
            command.run(["systemctl", "stop", UNIT], quote_error=True)
            return
        os.kill(pid, signal.SIGTERM)
        _wait(lambda: self.pid() is None, STOP_S, "nginx did not stop")

    def _take_up(self) -> None:
        pid = self.pid()
        if pid is None:
            self._start()
            return
        before = _workers(pid)
        if self._services == "systemd":
            command.run(["systemctl", "reload", UNIT], quote_error=True)
        else:
            os.kill(pid, signal.SIGHUP)
        # A master that cannot take up a configuration keeps its old workers and says so in a log that we do not have.
        # One that can starts new ones, and 0.1 s later the old ones stop accepting and finish what they have.
        _wait(
            lambda: bool(_workers(pid) - before) and not _accepting(before),
            RELOAD_S,
            "nginx did not take up its configuration",
        )

    def _start(self) -> None:
        if self._services == "systemd":
            command.run(["systemctl", "start", UNIT], quote_error=True)
        else:
            self._end_orphans()
            code = subprocess.run(
                ["nginx", "-c", str(self._config)],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            ).returncode
            if code != 0:
                raise HostError("nginx did not start", hint=f"try `nginx -t -c {self._config}`")
        _wait(lambda: self.pid() is not None, RELOAD_S, "nginx did not start")

    def _end_orphans(self) -> None:
        """End workers whose master was killed: they would hold the port and never read a configuration again."""
        try:
            master = int((self._paths.nginx / "nginx.pid").read_text("ascii"))
        except (OSError, ValueError):
            return
        # A master makes itself the leader of a session (setsid(2)); its workers stay in that session without it.
        orphans = [
            pid for pid in _pids() if _session(pid) == master and b"worker process" in _command_line(pid)
        ]
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        _wait(lambda: not any(_command_line(pid) for pid in orphans), STOP_S, "old nginx workers did not end")


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session(pid: int) -> int | None:
    try:
        # proc_pid_stat(5): the command in parentheses may hold anything, so fields are counted after the last one.
        return int(Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[3])
    except (OSError, IndexError):
        return None


def _workers(master: int) -> set[int]:
    children = Path(f"/proc/{master}/task/{master}/children").read_text("ascii").split()
    return {int(child) for child in children if b"worker process" in _command_line(int(child))}


def _accepting(workers: set[int]) -> set[int]:
    """Return those workers that still accept connections; nginx says in the process title when one does not."""
    titles = {pid: _command_line(pid) for pid in workers}
    return {pid for pid, title in titles.items() if title and b"shutting down" not in title}


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _wait(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise HostError(failure)
        time.sleep(0.01)


def _digest(config: str, certificate: str) -> str:
    return hashlib.sha256(f"{config}\0{certificate}".encode()).hexdigest()

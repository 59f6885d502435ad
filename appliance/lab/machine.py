"""One lab machine: start it, run commands in it, start services in it, end it.

Source: namespaces(7), nsenter(1), unshare(1), setpriv(1).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import HostError
from appliance.lab.topology import MachineSpec

BOOT_TIMEOUT_S = 20.0
END_TIMEOUT_S = 10.0
_NS_GET_PARENT = 0xB702  # linux/nsfs.h: _IO(NSIO, 0x2)
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}


@dataclass(frozen=True)
class Machine:
    """A running machine.

    Attributes:
        name: Host name.
        pid: Its PID 1, as the host sees it.
        started: Start time of that process in clock ticks (proc_pid_stat(5)), against reuse of the pid.
        folder: Its folder on the host: disk image and logs.
    """

    name: str
    pid: int
    started: int
    folder: Path

    @classmethod
    def boot(cls, spec: MachineSpec, folder: Path) -> Machine:
        """Start a machine and wait until its PID 1 is ready.

        Raises:
            HostError: If namespaces, overlay or loop devices cannot be had here.
        """
        for part in ("disk", "root"):
            (folder / part).mkdir(parents=True)
        if spec.disk_mib:
            _make_disk(folder / "disk.img", spec.disk_mib)
        argv = [
            *("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
            *(sys.executable, "-I", "-m", "appliance.lab.init", spec.name, str(folder)),
            *(str(tree) for tree in _trees()),
        ]
        holder = _spawn(argv, dict(os.environ), folder / "init.log")
        pid = _wait_for_child(holder, folder)
        machine = cls(spec.name, pid, _start_time(pid), folder)
        machine._wait_ready(holder)
        return machine

    def _wait_ready(self, holder: int) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while time.monotonic() < deadline:
            if _ended(holder):
                reason = (self.folder / "init.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
                raise HostError(
                    f"the lab machine {self.name} did not start: {' '.join(reason)}",
                    hint="run `appliance doctor`; without namespaces use `appliance demo --local`",
                )
            if Path(f"/proc/{self.pid}/root/run/ready").exists():
                return
            time.sleep(0.01)
        raise HostError(f"the lab machine {self.name} was not ready after {BOOT_TIMEOUT_S:.0f} s")

    @property
    def alive(self) -> bool:
        """True while its PID 1 is the process that we started."""
        try:
            return _start_time(self.pid) == self.started
        except OSError:
            return False

    @property
    def root(self) -> Path:
        """Its root folder as the host can read it."""
        return Path(f"/proc/{self.pid}/root")

    def argv(self, command: Sequence[str], *, user: str | None = None) -> list[str]:
        """Return the host command line that runs `command` in the machine, as root or as `user`."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "-r", "-w", "--"]
        if user:
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        return [*enter, *command]

    def run(
        self,
        *command: str,
        user: str | None = None,
        stdin: str | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine and return what it printed.

        Raises:
            HostError: If it fails and `check` is true, with the last line of its standard error.
        """
        done = subprocess.run(
            self.argv(command, user=user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**_ENVIRONMENT, **(env or {})},
            check=False,
        )
        if check and done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise HostError(
                f"{self.name}: {Path(command[0]).name} exited with {done.returncode}: {' '.join(last)}"
            )
        return done

    def popen(
        self,
        *command: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a command in the machine; the caller owns it."""
        return subprocess.Popen(
            self.argv(command, user=user),
            env={**_ENVIRONMENT, **(env or {})},
            start_new_session=True,
            **options,
        )

    def service(
        self, name: str, *command: str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a long-running process of the machine; its output goes to `<folder>/<name>.log` on the host."""
        _spawn(self.argv(command, user=user), {**_ENVIRONMENT, **(env or {})}, self.folder / f"{name}.log")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the machine."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
        target.chmod(mode)

    def processes(self) -> list[int]:
        """Return the pids, as the host sees them, of every process of the machine.

        Those are the ones in its PID namespace and in any namespace within it: a cell has one of its own.
        """
        inside = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        return [pid for pid in _pids() if inside in _namespaces(pid)]

    def end(self) -> None:
        """End the machine: SIGKILL for its PID 1 takes every process in it along (pid_namespaces(7)).

        Commands that entered it from outside see its mounts and are ended too. Returns once the kernel has let go of
        its disk, which it does a moment after the last process.
        """
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + END_TIMEOUT_S
        while (self.alive or _is_attached(self.folder / "disk.img")) and time.monotonic() < deadline:
            for pid in _visitors(self.folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def _visitors(folder: Path) -> list[int]:
    """Return the processes whose root is the overlay of this machine, whichever PID namespace they are in."""
    overlay = f"upperdir={folder}/disk/upper,"
    found = []
    for pid in _pids():
        try:
            if overlay in Path(f"/proc/{pid}/mountinfo").read_text():
                found.append(pid)
        except OSError:  # it ended meanwhile
            continue
    return found


def _is_attached(image: Path) -> bool:
    """Return True while a loop device is backed by this file (sysfs, loop/backing_file)."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().strip().removesuffix(" (deleted)") == str(image):
                return True
        except OSError:  # detached meanwhile
            continue
    return False


def _make_disk(image: Path, mebibytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(mebibytes * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, stdin=subprocess.DEVNULL)


def _trees() -> list[Path]:
    """The host folders that a machine needs for running our Python: interpreter, environment, this project."""
    project = Path(__file__).resolve().parents[2]
    trees = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), project}
    # What lies inside another tree, or in /usr (part of the overlay in any case), needs no mount of its own.
    outer = [t for t in trees if not any(t != o and o in t.parents for o in trees)]
    return sorted(t for t in outer if t != Path("/usr") and Path("/usr") not in t.parents)


def _spawn(argv: list[str], env: Mapping[str, str], log: Path) -> int:
    """Start a process that outlives this command, in a session of its own; return its pid."""
    return os.posix_spawnp(
        argv[0],
        argv,
        env,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait_for_child(holder: int, folder: Path) -> int:
    children = Path(f"/proc/{holder}/task/{holder}/children")
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline and not _ended(holder):
        pids = children.read_text().split()
        if pids:
            return int(pids[0])
        time.sleep(0.002)
    reason = (folder / "init.log").read_text("utf-8", "replace").strip()
    raise HostError(
        f"no namespaces here: {reason or 'unshare did not start'}",
        hint="the lab needs root and Linux namespaces; `appliance demo --local` needs neither",
    )


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespaces(pid: int) -> list[int]:
    """Return the PID namespaces that a process is in, the innermost first, as inode numbers (ioctl_ns(2))."""
    found: list[int] = []
    try:
        namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY)
    except OSError:  # it ended meanwhile
        return found
    while True:
        found.append(os.fstat(namespace).st_ino)
        try:
            parent = fcntl.ioctl(namespace, _NS_GET_PARENT)
        except OSError:  # EPERM: the parent is beyond our own namespace
            return found
        finally:
            os.close(namespace)
        namespace = parent


def _start_time(pid: int) -> int:
    # The command name in field 2 may hold spaces and parentheses; fields are counted after its last ')'.
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rsplit(")", 1)[1].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def require_root() -> None:
    """Refuse early, with what to do instead.

    Raises:
        HostError: If we are not root or a tool is missing.
    """
    if os.geteuid() != 0:
        raise HostError(
            "the lab needs root", hint="sudo make demo, or `appliance demo --local` without the tunnel"
        )
    tools = (
        "unshare",
        "nsenter",
        "setpriv",
        "ip",
        "wg",
        "nft",
        "nginx",
        "sshd",
        "mkfs.ext4",
        "conntrack",
        "pivot_root",
    )
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise HostError(f"not installed: {', '.join(missing)}", hint="sudo make setup")

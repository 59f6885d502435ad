"""PID 1 of a lab machine: builds its root, then reaps until it is told to end.

1. Make every mount private, so that nothing done here reaches the host.
2. Mount the disk image (or a tmpfs) and an overlay of the host's root with it.
3. Give it /proc, /sys, /dev, /run, /tmp and /dev/shm of its own, and the trees that Python and this project live in.
4. pivot_root(2) into it and drop the old root.
5. Name the machine, bring up lo, write the ready file, reap children.

Started by `appliance.lab.machine` inside new namespaces, as root, as
`python -I -m appliance.lab.init NAME FOLDER TREE…`.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
TUN = (10, 200)  # Linux allocated devices: misc, universal TUN/TAP


def main() -> None:
    """Become the machine; never returns until SIGTERM."""
    name, folder, *trees = sys.argv[1:]
    build_root(Path(folder), [Path(tree) for tree in trees])
    run("hostname", name)
    run("ip", "link", "set", "lo", "up")
    Path("/run/ready").touch()
    reap()


def run(*argv: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def build_root(folder: Path, trees: list[Path]) -> None:
    """Mount the machine's root under `folder` and pivot into it."""
    disk, root = folder / "disk", folder / "root"
    run("mount", "--make-rprivate", "/")
    image = folder / "disk.img"
    if image.exists():
        run("mount", "-o", "loop,noatime", str(image), str(disk))
    else:
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "disk", str(disk))
    for part in ("upper", "work"):
        (disk / part).mkdir(exist_ok=True)
    run(
        "mount",
        "-t",
        "overlay",
        "root",
        "-o",
        f"lowerdir=/,upperdir={disk}/upper,workdir={disk}/work",
        str(root),
    )
    mount_system(root)
    for tree in trees:
        mount_tree(root, tree)
    os.chdir(root)
    (root / "run/old").mkdir()
    run("pivot_root", ".", "run/old")
    os.chdir("/")
    run("umount", "--lazy", "/run/old")
    Path("/run/old").rmdir()


def mount_system(root: Path) -> None:
    """Mount what every machine has for itself."""
    run("mount", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{root}/proc")
    run("mount", "-t", "sysfs", "-o", "ro,nosuid,nodev,noexec", "sysfs", f"{root}/sys")
    for folder, mode in (("dev", "0755"), ("run", "0755"), ("tmp", "1777")):
        run("mount", "-t", "tmpfs", "-o", f"nosuid,mode={mode}", folder, f"{root}/{folder}")
    for name, (major, minor) in DEVICES.items():
        make_device(root / "dev" / name, major, minor, 0o666)
    (root / "dev/net").mkdir()
    make_device(root / "dev/net/tun", *TUN, 0o600)
    for name, target in LINKS.items():
        (root / "dev" / name).symlink_to(target)
    for name, kind, options in (("shm", "tmpfs", "mode=1777"), ("pts", "devpts", "ptmxmode=0666")):
        (root / "dev" / name).mkdir()
        run("mount", "-t", kind, "-o", options, name, f"{root}/dev/{name}")
    (root / "run/lock").mkdir()


def make_device(path: Path, major: int, minor: int, mode: int) -> None:
    """Make a character device whose mode the umask does not narrow."""
    os.mknod(path, stat.S_IFCHR | mode, os.makedev(major, minor))
    path.chmod(mode)


def mount_tree(root: Path, tree: Path) -> None:
    """Show a host folder read-only at the same path, whichever file system it is on, to every user."""
    inside = root / tree.relative_to("/")
    inside.mkdir(parents=True, exist_ok=True)
    for parent in inside.parents:
        if parent == root or root not in parent.parents:
            break
        # A home folder is often 0700; cells run as their own users and must reach the interpreter in it.
        parent.chmod(parent.stat().st_mode | 0o111)
    run("mount", "--bind", str(tree), str(inside))
    run("mount", "-o", "remount,ro,bind", str(inside))


def reap() -> None:
    """Wait for children that nobody else waits for, until SIGTERM."""
    ended = False

    def end(_signal: int, _frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda _s, _f: None)
    while not ended:
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()

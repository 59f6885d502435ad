"""Starting one cell's process, either in namespaces of its own (as root) or plainly (as whoever runs the launcher).

Isolated, three processes take part: the launcher; a keeper that made the namespaces and waits; and the cell, process 1
of its PID namespace. Each is killed by the kernel when the one before it dies (PR_SET_PDEATHSIG), and the death of
process 1 takes with it whatever it forked (pid_namespaces(7)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from appliance.core import malloc
from appliance.core.node import NodePaths
from inference.confinement import libc
from inference.launcher import view

# -s -P rather than -I: isolated mode would ignore PYTHONMALLOC. Nothing else of Python's is in the environment.
STUB = (sys.executable, "-s", "-P", "-m", "inference.confinement.stub")
EXIT_START_FAILED = 71  # EX_OSERR: the process could not be put into its place

_LISTENER, _REPORT = 3, 4
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONMALLOC": "malloc",
    **malloc.OVERWRITE_FREED,
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""What a cell finds in its environment besides the socket that it inherits."""
_NAMESPACES = libc.CLONE_NEWNS | libc.CLONE_NEWPID | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS


@dataclass(frozen=True)
class Order:
    """What to start.

    Attributes:
        client: Whose cell.
        paths: Where things are on this node.
        uid: The cell's own user and group, never 0; None: plainly, as the launcher's user.
        listener: The client's listening socket.
        program: The stub's command, without arguments.
    """

    client: str
    paths: NodePaths
    uid: int | None
    listener: socket.socket
    program: Sequence[str] = STUB


@dataclass(frozen=True)
class Started:
    """A cell that was started.

    Attributes:
        child: Our child, to be waited for: the cell itself, or its keeper, which ends as the cell ends.
        cell: The cell's process id as we see it, 0 if it could not be started.
        report: Descriptor to read the verdict of the stub from.
    """

    child: int
    cell: int
    report: int


def start(order: Order) -> Started:
    """Start a cell. Blocks for the few milliseconds that namespaces take.

    Raises:
        OSError: If no process can be made.
    """
    report, reported = os.pipe()
    try:
        if order.uid is None:
            child = cell = _fork(lambda: _become_plain(order, reported))
        else:
            told, tell = os.pipe()
            child = _fork(lambda: _keep(order, reported, tell))
            os.close(tell)
            cell = int(os.read(told, 16) or b"0")  # one write; to read on would wait for the cell's exec
            os.close(told)
    finally:
        os.close(reported)
    return Started(child, cell, report)


def _fork(run: Callable[[], NoReturn]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        run()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        os.write(2, f"appliance launcher: a cell could not be started: {name}\n".encode("ascii"))
    finally:
        os._exit(EXIT_START_FAILED)


def _keep(order: Order, reported: int, tell: int) -> NoReturn:
    """The keeper: make the namespaces, start the cell in them, and end as it ends."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    _default_signals()
    libc.unshare(_NAMESPACES)
    cell = _fork(lambda: _become_isolated(order, reported))
    os.write(tell, b"%d" % cell)
    for descriptor in (tell, reported, order.listener.fileno()):
        os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(cell, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _become_isolated(order: Order, reported: int) -> NoReturn:
    uid = order.uid or 0
    if uid == 0:
        raise OSError(errno.EPERM, "a cell never runs as root")
    view.apply_view(order.client, order.paths)
    os.chdir("/")
    socket.sethostname("cell")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # again: the change of user cleared it
    arguments = _arguments(order, Path(view.POLICY), Path(view.NOTARY), Path(view.SEATS), Path(view.MODELS))
    _execute(order, reported, [*arguments, "--network-namespace"])


def _become_plain(order: Order, reported: int) -> NoReturn:
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    _default_signals()
    os.setsid()
    paths = order.paths
    policy = paths.clients / order.client / "policy.json"
    notary = paths.notary_clients / order.client / "notary.sock"
    _execute(order, reported, _arguments(order, policy, notary, paths.seats, paths.models))


def _arguments(order: Order, policy: Path, notary: Path, seats: Path, models: Path) -> list[str]:
    named = {"client": order.client, "policy": policy, "notary": notary, "seats": seats, "models": models}
    flags = [part for name, value in named.items() for part in (f"--{name}", str(value))]
    return [*order.program, *flags, "--report-fd", str(_REPORT)]


def _execute(order: Order, reported: int, command: list[str]) -> NoReturn:
    """Put the descriptors where the stub expects them and become the stub. The others close by themselves (PEP 446)."""
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 16) for number in (order.listener.fileno(), reported)]
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (nothing, 1), (high[0], _LISTENER), (high[1], _REPORT)):
        os.dup2(source, target)
    os.execve(command[0], command, ENVIRONMENT | {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})  # noqa: S606


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def end(pidfd: int, number: signal.Signals) -> None:
    """Send a signal to a cell; one that is gone needs none."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)

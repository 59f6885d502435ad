"""The stub: confines this process, and only then imports the cell and calls it.

Started by systemd or the launcher, single-threaded, with the standard library alone:

    1. take descriptor 3, the listening socket (LISTEN_FDS, LISTEN_PID; sd_listen_fds(3))
    2. connect to the notary
    3. open the seat files for reading
    4. point 0, 1 and 2 at /dev/null and close everything else, but the descriptor for the report
    5. confine this process and try every property (`confine`)
    6. report the verdict, one word of a closed set, and close that descriptor
    7. take a seat; none free: answer 503 for two seconds and end
    8. import the cell and serve

Exit codes: what the cell returns (0: idle and done), 1 an unexpected error, 75 no seat, 78 refused: a required
property or input is missing. The report is `confined` or `refused PROPERTY`, on `--report-fd`, else on descriptor 2.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inference.confinement import libc, seat, syscalls
from inference.confinement.confine import Confiner, Kept, View
from inference.confinement.properties import EXIT_FAILED, EXIT_NO_SEAT, EXIT_REFUSED, Property, PropertyError
from inference.confinement.seccomp import LISTENER


@dataclass(frozen=True)
class Inputs:
    """What the stub holds open when it confines itself."""

    listener: socket.socket
    notary: socket.socket
    seats: list[int]
    report: int


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; they hold paths and the client's name, nothing else."""
    parser.add_argument("--client", required=True, help="name of the client that this cell serves")
    parser.add_argument("--policy", required=True, type=Path, metavar="FILE", help="the client's policy.json")
    parser.add_argument("--notary", required=True, type=Path, metavar="SOCKET", help="the notary's socket")
    parser.add_argument("--seats", required=True, type=Path, metavar="FOLDER", help="folder of seat files")
    parser.add_argument("--models", required=True, type=Path, metavar="FOLDER", help="folder of model files")
    parser.add_argument(
        "--network-namespace", action="store_true", help="started in an empty network namespace"
    )
    parser.add_argument("--report-fd", type=int, metavar="N", help="descriptor for the verdict (default: 2)")


def run(args: argparse.Namespace, confiner: type[Confiner] = Confiner) -> int:
    """Confine, take a seat, serve; return the exit code."""
    os.chdir("/")
    # Process 1 of a namespace ignores a signal that it does not handle (pid_namespaces(7)).
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    report = os.dup(2) if args.report_fd is None else args.report_fd
    try:
        inputs = _open_inputs(args, report)
        kept = confiner(_view(args, inputs)).confine()
    except PropertyError as refusal:
        _report(report, f"refused {refusal.prop}")
        return EXIT_REFUSED
    _report(report, "confined")
    return _serve(args, inputs, kept)


def _open_inputs(args: argparse.Namespace, report: int) -> Inputs:
    """Steps 1 to 4."""
    listener = _take_listener()
    notary = _connect(args.notary)
    seats = _open_seats(args.seats)
    for path, prop in ((args.policy, Property.POLICY), (args.models, Property.MODELS)):
        if not os.access(path, os.R_OK):
            raise PropertyError(prop)
    inputs = Inputs(listener, notary, seats, report)
    _close_everything_but(_descriptors(inputs))
    return inputs


def _take_listener() -> socket.socket:
    passed = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if passed != ("1", str(os.getpid())):
        raise PropertyError(Property.LISTENER)
    try:
        listener = socket.socket(fileno=LISTENER)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise PropertyError(Property.LISTENER) from error
    if listener.family != socket.AF_UNIX or not listening:
        raise PropertyError(Property.LISTENER)
    listener.set_inheritable(False)
    return listener


def _connect(path: Path) -> socket.socket:
    notary = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        notary.connect(os.fspath(path))
    except OSError as error:
        raise PropertyError(Property.NOTARY) from error
    return notary


def _open_seats(folder: Path) -> list[int]:
    try:
        seats = seat.open_seats(folder)
    except OSError as error:
        raise PropertyError(Property.SEATS) from error
    if not seats:
        raise PropertyError(Property.SEATS)
    return seats


def _descriptors(inputs: Inputs) -> frozenset[int]:
    return frozenset(
        (0, 1, 2, inputs.listener.fileno(), inputs.notary.fileno(), *inputs.seats, inputs.report)
    )


def _close_everything_but(kept: frozenset[int]) -> None:
    """Point 0, 1 and 2 at nothing (llama.cpp prints grammars to stderr) and close what was inherited."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    ordered = sorted(kept)
    for low, high in zip(ordered, [*ordered[1:], 2**32], strict=True):
        if low + 1 < high:
            libc.syscall(syscalls.CLOSE_RANGE, low + 1, high - 1, 0)


def _view(args: argparse.Namespace, inputs: Inputs) -> View:
    readable = (args.policy.parent, args.models)
    return View(readable, _descriptors(inputs), args.network_namespace)


def _report(descriptor: int, verdict: str) -> None:
    with suppress(OSError):  # nobody reads it any more
        os.write(descriptor, f"{verdict}\n".encode("ascii"))
    os.close(descriptor)


def _serve(args: argparse.Namespace, inputs: Inputs, kept: Kept) -> int:
    """Steps 7 and 8. Whatever the cell raises ends here unprinted: an exception's text could quote content."""
    try:
        if seat.take_seat(inputs.seats) is None:
            from inference.cell.busy import serve_busy

            serve_busy(inputs.listener)
            return EXIT_NO_SEAT
        from appliance.core.receipt import Confinement
        from inference.cell.main import CellInputs, serve

        confinement = Confinement(
            landlock_abi=kept.landlock_abi,
            seccomp=True,
            network=kept.network,
            core_dumps=False,
            dumpable=False,
            swap=False,
        )
        return serve(
            CellInputs(
                client=args.client,
                policy_file=args.policy,
                models=args.models,
                listener=inputs.listener,
                notary=inputs.notary,
                confinement=confinement,
                cores=len(os.sched_getaffinity(0)),
            )
        )
    except Exception:  # noqa: BLE001
        return EXIT_FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -s -P -m inference.confinement.stub`."""
    parser = argparse.ArgumentParser(prog="appliance cell", allow_abbrev=False)
    configure(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())

"""Controls of several sizes under measurement: one process each, that admit in alternation, so that noise meets all of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from appliance.bench.receipts.control_process import Proofs, Took
from appliance.core.errors import HostError

_PROCESS: Final = (sys.executable, "-m", "appliance.bench.receipts.control_process")


@dataclass(frozen=True)
class Grown:
    """What was measured at one size.

    Attributes:
        leaves: Before the admissions.
        rounds: How long each took.
        round_receipts: Admitted in each.
        proofs: Everything else.
    """

    leaves: int
    rounds: tuple[Took, ...]
    round_receipts: int
    proofs: Proofs

    @property
    def per_s(self) -> float:
        """Receipts per second over all rounds."""
        return self.admitted / sum(took.wall_s for took in self.rounds)

    @property
    def admitted(self) -> int:
        """Receipts, over all rounds."""
        return self.round_receipts * len(self.rounds)


def measure_admission(
    scratch: Path, leaves: Sequence[int], rounds: int, round_receipts: int, report: Callable[[str], None]
) -> list[Grown]:
    """Fill a control for each size, admit receipts into each in turn, and remove them.

    Args:
        scratch: Folder on a disk.
        leaves: Sizes, each a multiple of `grown.CLIENTS`.
        rounds: How often each admits.
        round_receipts: In each round; at least as many as make a checkpoint due.
        report: Told what is being done, for people.

    Raises:
        HostError: If a process fails; the hint holds the end of what it printed.
    """
    with contextlib.ExitStack() as stack:
        controls = [
            stack.enter_context(_control(scratch, size, rounds * round_receipts, report)) for size in leaves
        ]
        took: list[list[Took]] = [[] for _ in leaves]
        for number in range(rounds):
            report(f"admission, round {number + 1} of {rounds}")
            for control, rounds_of in zip(controls, took, strict=True):
                rounds_of.append(control.admit(round_receipts))
        report("proofs")
        return [
            Grown(size, tuple(rounds_of), round_receipts, control.observe())
            for size, control, rounds_of in zip(leaves, controls, took, strict=True)
        ]


class _Control:
    """A process that admits."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def admit(self, count: int) -> Took:
        stdin = _pipe(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has ended; reading says so
            stdin.write(f"{count}\n")
            stdin.flush()
        return Took(**self._answer())

    def observe(self) -> Proofs:
        _pipe(self._process.stdin).close()
        return Proofs(**self._answer())

    def _answer(self) -> Any:
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise _failed(self._log)
        return json.loads(line)


@contextlib.contextmanager
def _control(
    scratch: Path, leaves: int, admissions: int, report: Callable[[str], None]
) -> Iterator[_Control]:
    """Fill a control and start its process; end and remove it afterwards."""
    folder = scratch / str(leaves)
    folder.mkdir()
    log = folder / "stderr"
    report(f"making a log of {leaves:,} leaves")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        errors = stack.enter_context(log.open("w", encoding="utf-8"))
        make = [*_PROCESS, "make", str(folder), str(leaves), str(admissions)]
        if subprocess.run(make, stdin=subprocess.DEVNULL, stderr=errors, check=False).returncode:
            raise _failed(log)
        process = subprocess.Popen(
            [*_PROCESS, "measure", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        yield _Control(process, log)


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise HostError("a process under measurement has no pipe")
    return stream


def _failed(log: Path) -> HostError:
    said = log.read_text("utf-8", "replace")[-2000:]
    return HostError("a control under measurement failed", hint=said or "it printed nothing")

"""`appliance bench receipts`: the notary beside the bare disk, then control at each size, the figures judged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.bench.receipts.admission import Grown, measure_admission
from appliance.bench.receipts.disk import records_per_s, scratch_parent
from appliance.bench.receipts.grown import CLIENTS
from appliance.bench.receipts.rows import Signing, check_admission, check_control, check_signing
from appliance.bench.receipts.sessions import (
    FORGETFUL,
    Load,
    load_notary,
    replies_before_disk,
    running_notary,
    written_bytes,
)
from appliance.bench.report import Report
from appliance.core.errors import UsageError

USUAL: Final = (10_000, 1_000_000)
FULL: Final = (*USUAL, 10_000_000)
MOST_LEAVES: Final = 100_000_000


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        leaves: Sizes of the log.
        signing_rounds, signing_s: How often the notary and the disk take turns, and how long a turn is.
        at_once: Sessions at once; the last is the most.
        asked: Sessions whose replies are compared with what the disk has.
        rounds, round_receipts: Admissions at each size.
    """

    leaves: tuple[int, ...] = USUAL
    signing_rounds: int = 3
    signing_s: float = 1.5
    at_once: tuple[int, ...] = (1, 8, 32)
    asked: int = 50
    rounds: int = 10
    round_receipts: int = 2000

    def __post_init__(self) -> None:
        if any(not 0 < size <= MOST_LEAVES or size % CLIENTS for size in self.leaves) or not self.leaves:
            raise UsageError(f"--leaves takes multiples of {CLIENTS} up to {MOST_LEAVES}")


@dataclass(frozen=True)
class Measured:
    """A finished run."""

    report: Report
    signing: Signing
    grown: Sequence[Grown]


def measure_receipts(options: Options, report: Callable[[str], None]) -> Measured:
    """Measure, and remove everything that was made for it.

    Raises:
        HostError: If there is no disk for temporary files, or a process under measurement fails.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=scratch_parent()) as folder:
        scratch = Path(folder)
        signing = _measure_signing(scratch, options, report)
        sizes = sorted(set(options.leaves))
        grown = measure_admission(scratch, sizes, options.rounds, options.round_receipts, report)
    checks = (*check_signing(signing), *check_admission(grown))
    return Measured(Report(checks, *check_control(signing, grown)), signing, grown)


def _measure_signing(scratch: Path, options: Options, report: Callable[[str], None]) -> Signing:
    loads: dict[int, list[Load]] = {count: [] for count in options.at_once}
    alone, grouped = [], []
    with running_notary(scratch / "notary") as notary:
        before = written_bytes(notary)
        early = replies_before_disk(notary, options.asked)
        record_bytes = (written_bytes(notary) - before) // (2 * options.asked)
        for number in range(options.signing_rounds):
            report(f"notary and bare disk, round {number + 1} of {options.signing_rounds}")
            for count, of_count in loads.items():
                of_count.append(load_notary(notary, count, options.signing_s))
            alone.append(records_per_s(scratch, record_bytes, 1, options.signing_s))
            grouped.append(records_per_s(scratch, record_bytes, options.at_once[-1], options.signing_s))
    report("a notary whose fsync does nothing")
    with running_notary(scratch / "control", FORGETFUL) as notary:
        early_control = replies_before_disk(notary, options.asked)
    return Signing(
        {count: [load.per_s for load in of_count] for count, of_count in loads.items()},
        alone,
        grouped,
        record_bytes,
        [load.cpu_us for load in loads[options.at_once[-1]]],
        early,
        early_control,
        options.asked,
    )

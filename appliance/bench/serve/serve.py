"""`appliance bench serve`: what it needs is found or made, the cases are measured, the figures judged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.bench.report import Check, Report
from appliance.bench.serve.cases import CASES, CONTROL, Case, choose
from appliance.bench.serve.plans import Model
from appliance.bench.serve.rounds import Progress, Round, Starter, measure
from appliance.bench.serve.rows import check_control, check_rows, check_tokens
from appliance.core.errors import UsageError
from appliance.core.pin import Launch
from appliance.models import read_model

ROUNDS: Final = 5
_SEED: Final = 1
_ANY_LAUNCH: Final = Launch()  # each plan has its own


@dataclass(frozen=True)
class Options:
    """What the command line chose.

    Attributes:
        shape: Of the synthetic model.
        rounds: How often everything is measured.
        cases: By name; empty for the usual ones.
        full: The extra ones too.
    """

    shape: str
    rounds: int = ROUNDS
    cases: tuple[str, ...] = ()
    full: bool = False


@dataclass(frozen=True)
class Measured:
    """A finished run.

    Attributes:
        report: In the common form.
        rounds: All figures.
        cases: What was measured, in order.
    """

    report: Report
    rounds: Sequence[Round]
    cases: Sequence[Case]


def measure_serve(options: Options, report: Progress) -> Measured:
    """Find or build llama-server and the model, measure, and end everything that was started.

    Raises:
        UsageError: If a case does not exist.
        HostError: If llama-server cannot be built or a server does not start.
        BenchPeerError: If a server fails while it is measured.
    """
    from appliance.bench.serve.running import bench
    from appliance.bench.shapes import SHAPES, find_or_write, shape_manifest
    from provisioning.build_peer import find_or_build

    chosen = _choose(options)
    report("looking for llama-server")
    peer = find_or_build()
    weights = find_or_write(SHAPES[options.shape], report)
    synthetic = Model(weights, shape_manifest(weights, _ANY_LAUNCH))
    reader = read_model()
    shipped = Model(reader.weights, reader.manifest, ends=True)

    def model(case: Case) -> Model:
        return shipped if case.shipped else synthetic

    with bench(peer, len(os.sched_getaffinity(0))) as running:
        return measure_cases(chosen, options.rounds, model, start=running.run, report=report)


def measure_cases(
    cases: Sequence[Case],
    rounds: int,
    models: Callable[[Case], Model],
    *,
    start: Starter,
    report: Progress,
) -> Measured:
    """Measure cases on servers that `start` brings up, and judge the figures."""
    figures = asyncio.run(measure(cases, rounds, _SEED, models=models, start=start, report=report))
    forced = [case.name for case in cases if not case.shipped]
    checks: tuple[Check, ...] = (*check_rows(figures), check_tokens(figures, forced))
    return Measured(Report(checks, *check_control(figures)), figures, cases)


def _choose(options: Options) -> list[Case]:
    known = [case.name for case in CASES if case.name != CONTROL]
    unknown = set(options.cases) - set(known)
    if unknown:
        raise UsageError("there is no such case", hint=f"the cases are {', '.join(known)}")
    return choose(list(options.cases), full=options.full)

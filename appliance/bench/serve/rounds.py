"""Runs the cases round after round, the sides of each in alternation, so that noise of the machine meets all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from appliance.bench.serve.cases import Case
from appliance.bench.serve.client import ask
from appliance.bench.serve.metrics import Figures, summarise
from appliance.bench.serve.plans import Model, Plan
from appliance.bench.serve.prompts import Prompts
from appliance.bench.serve.running import Servers

Round = Mapping[tuple[str, str], Figures]
"""One round's figures, by name of the case and of the side."""
Starter = Callable[[Plan, Model], AbstractAsyncContextManager[Servers]]
Progress = Callable[[str], None]
Models = Callable[[Case], Model]

_SETTLE_S = 0.2  # after the last start-up and warm-up, for threads to go to sleep


async def measure(
    cases: Sequence[Case], rounds: int, seed: int, *, models: Models, start: Starter, report: Progress
) -> list[Round]:
    """Return the figures of every round.

    Args:
        cases: What is measured.
        rounds: How many times.
        seed: Of the prompts.
        models: Which model a case takes.
        start: Starts the servers of a plan.
        report: Told what is being done, for people.

    Raises:
        BenchPeerError, HostError: If a server fails; a round with a hole in it would say nothing.
    """
    done: list[Round] = []
    for number in range(rounds):
        figures: dict[tuple[str, str], Figures] = {}
        for case in cases:
            for side in _turned(list(case.sides), number):
                report(f"round {number + 1} of {rounds}: {case.name}, {side}")
                figures[case.name, side] = await _once(case, side, models(case), start, Prompts(seed, number))
        done.append(figures)
    return done


async def _once(case: Case, side: str, model: Model, start: Starter, prompts: Prompts) -> Figures:
    async with start(case.sides[side], model) as servers:
        for endpoint in servers.endpoints:
            await ask(endpoint, [{"role": "user", "content": "warm up"}], 8, stream=False)
        await asyncio.sleep(_SETTLE_S)
        run = await case.load(servers, prompts)
        return summarise(run.answers, waited=run.waited, window=run.window, peak_bytes=servers.peak_bytes())


def _turned(sides: list[str], by: int) -> list[str]:
    """Begin with another side in every round: who comes first meets a cooler processor."""
    by %= len(sides)
    return sides[by:] + sides[:by]

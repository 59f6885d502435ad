"""The engine's thread, with a simulated runner: commands between steps, one hand-over per step, failures told once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from appliance.core.errors import RefusedError
from inference.engine import worker
from inference.engine.erase import Erased
from inference.engine.errors import EngineFailed
from inference.engine.pace import Speed
from inference.engine.runner import Piece, Runner
from inference.engine.sampling import Sampling
from inference.engine.worker import Worker

LONG = Sampling(max_tokens=100)


@dataclass
class SimulatedRunner:
    """Each stream counts down from `max_tokens`; a step makes one piece for each."""

    left: dict[int, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)
    fault: Exception | None = None
    verified: bool = True
    tidy_due: bool = False
    speed: Speed = Speed(1.0, 2.0)  # noqa: RUF009 - frozen
    opened: int = 0
    interrupted: int = 0

    @property
    def busy(self) -> bool:
        return bool(self.left)

    def open(self) -> int:
        self.opened += 1
        return self.opened - 1

    def start(
        self, stream: int, prompt: list[int], sampling: Sampling, _like: int | None = None, _shared: int = 0
    ) -> None:
        if not prompt:
            raise RefusedError("empty")
        self.log.append(f"start {stream}")
        self.left[stream] = sampling.max_tokens

    def cancel(self, stream: int) -> None:
        self.log.append(f"cancel {stream}")
        self.left.pop(stream, None)

    def close(self, stream: int) -> Erased:
        self.cancel(stream)
        return Erased(8, self.verified)

    def close_all(self) -> None:
        self.log.append("close all")

    def tidy(self, pending: Callable[[], bool]) -> None:
        if not pending():
            self.tidy_due = False

    def interrupt(self) -> None:
        self.interrupted += 1

    def step(self, _early: object = None) -> list[tuple[int, Piece]]:
        self.threads.add(threading.get_ident())
        self.go.wait(5)
        if self.fault is not None:
            raise self.fault
        self.log.append("step")
        pieces = []
        for stream in sorted(self.left):
            self.left[stream] -= 1
            pieces.append((stream, Piece("x", 1, None if self.left[stream] else "length")))
        self.left = {stream: left for stream, left in self.left.items() if left}
        return pieces


@dataclass
class Bench:
    """A worker, what it runs, and what it delivered."""

    worker: Worker[str]
    runner: SimulatedRunner
    delivered: list[list[tuple[str, Piece]]]
    failures: list[EngineFailed]
    released: list[int]

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        pytest.fail("it never came to that")


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        runner = SimulatedRunner()
        delivered: list[list[tuple[str, Piece]]] = []
        failures: list[EngineFailed] = []
        released: list[int] = []

        def deliver(pieces: list[tuple[str, Piece]], failure: EngineFailed | None) -> None:
            if pieces:
                delivered.append(pieces)
            if failure is not None:
                failures.append(failure)

        worker: Worker[str] = Worker(
            cast("Runner", runner), lambda: released.append(1), asyncio.get_running_loop(), deliver
        )
        try:
            async with asyncio.timeout(15):
                await scenario(Bench(worker, runner, delivered, failures, released))
        finally:
            runner.go.set()
            await worker.aclose()

    asyncio.run(main())


def test_a_step_is_handed_over_once_however_many_answers_it_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_HAND_OVER_S", 0.0)

    async def scenario(bench: Bench) -> None:
        for stream, owner in enumerate("abc"):
            starting = asyncio.create_task(bench.worker.start(stream, [1], Sampling(max_tokens=3), owner))
            await asyncio.sleep(0)
            if stream == 2:
                bench.runner.go.set()
            await asyncio.wait([starting], timeout=0.05)
        await bench.until(lambda: not bench.runner.busy)
        await asyncio.sleep(0.01)
        assert len(bench.delivered) == bench.runner.log.count("step")
        assert [owner for owner, _ in max(bench.delivered, key=len)] == ["a", "b", "c"]
        assert len(bench.runner.threads) == 1
        assert threading.get_ident() not in bench.runner.threads
        assert bench.worker.speed == Speed(1.0, 2.0)

    play(scenario)


def test_steps_that_take_no_time_are_handed_over_together_and_the_first_piece_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.runner.go.set()
        await bench.worker.start(0, [1], LONG, "a")
        await bench.until(lambda: not bench.runner.busy)
        await asyncio.sleep(0.01)
        assert len(bench.delivered[0]) == 1
        assert sum(map(len, bench.delivered)) == LONG.max_tokens
        assert len(bench.delivered) < LONG.max_tokens / 2
        assert bench.delivered[-1][-1][1].finish == "length"

    play(scenario)


def test_a_cancel_takes_effect_before_the_next_step() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.worker.start(0, [1], LONG, "a")
        bench.worker.cancel(0)
        bench.runner.go.set()
        await bench.until(lambda: "cancel 0" in bench.runner.log)
        await asyncio.sleep(0.05)
        assert bench.runner.log.count("step") <= 1  # the one that was running
        assert not bench.worker._owners  # nor does the worker remember whose it was

    play(scenario)


def test_a_command_that_is_refused_raises_at_its_caller_and_harms_nobody() -> None:
    async def scenario(bench: Bench) -> None:
        bench.runner.go.set()
        with pytest.raises(RefusedError):
            await bench.worker.start(0, [], LONG, "a")
        await bench.worker.start(1, [1], Sampling(max_tokens=2), "b")
        await bench.until(lambda: len(bench.delivered) == 2)
        assert not bench.failures

    play(scenario)


@pytest.mark.parametrize("fault", [EngineFailed("ours"), ZeroDivisionError("not ours")])
def test_a_failed_step_is_told_once_and_only_closing_goes_on(fault: Exception) -> None:
    async def scenario(bench: Bench) -> None:
        bench.runner.fault = fault
        bench.runner.go.set()
        await bench.worker.start(0, [1], LONG, "a")
        await bench.until(lambda: bool(bench.failures))
        calls: list[Awaitable[Any]] = [bench.worker.open(), bench.worker.start(1, [1], LONG, "b")]
        for call in calls:
            with pytest.raises(EngineFailed):
                await call
        assert (await bench.worker.close(0)).verified
        assert len(bench.failures) == 1

    play(scenario)


def test_an_erase_that_does_not_verify_is_a_failure() -> None:
    async def scenario(bench: Bench) -> None:
        bench.runner.verified = False
        assert not (await bench.worker.close(0)).verified
        await bench.until(lambda: bool(bench.failures))

    play(scenario)


def test_closing_the_worker_closes_every_stream_then_frees_once_and_refuses_after() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.worker.aclose()
        await bench.worker.aclose()
        assert bench.runner.log == ["close all"]
        assert bench.released == [1]
        with pytest.raises(EngineFailed):
            await bench.worker.open()

    play(scenario)


def test_a_caller_that_went_away_does_not_stop_the_thread() -> None:
    async def scenario(bench: Bench) -> None:
        opening = asyncio.create_task(bench.worker.open())
        await asyncio.sleep(0)
        opening.cancel()
        assert await bench.worker.open() == 1

    play(scenario)

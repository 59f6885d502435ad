"""The engine from the event loop's side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from engine_bench import CONTEXT_TOKENS, text_of

from appliance.core.errors import PinError, RefusedError
from appliance.core.pin import Manifest, Runtime
from inference.engine import erase as erasing
from inference.engine.engine import (
    ContextOverflow,
    DeadlinePassed,
    Draining,
    Engine,
    EngineFailed,
    Limits,
    NoFreeStream,
    Piece,
    Sampling,
    StreamBusy,
)
from inference.engine.runner import Runner

pytestmark = pytest.mark.engine

GREEDY = Sampling(max_tokens=16, temperature=0)
Scenario = Callable[[Engine], Awaitable[None]]


@asynccontextmanager
async def loaded(manifest: Manifest, weights: Path, limits: Limits = Limits()) -> AsyncIterator[Engine]:  # noqa: B008 - frozen
    descriptor = os.open(weights, os.O_RDONLY)
    try:
        loop = asyncio.get_running_loop()
        engine = Engine.load(manifest, descriptor, threads=1, loop=loop, limits=limits)
    finally:
        os.close(descriptor)
    try:
        yield engine
    finally:
        await engine.aclose()


@pytest.fixture
def play(manifest: Manifest, weights: Path) -> Callable[[Scenario], None]:
    def play(scenario: Scenario) -> None:
        async def main() -> None:
            async with loaded(manifest, weights) as engine, asyncio.timeout(20):
                await scenario(engine)

        asyncio.run(main())

    return play


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def collect(engine: Engine, stream: int, text: str, sampling: Sampling = GREEDY) -> list[Piece]:
    return [piece async for piece in engine.generate(stream, engine.prompt_tokens(user(text)), sampling)]


def test_streams_answer_side_by_side_and_close_erased(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        assert len(engine.runtime_digest) == 64
        assert engine.context_tokens == CONTEXT_TOKENS
        streams = [await engine.open_stream() for _ in range(4)]
        assert streams == [0, 1, 2, 3]
        answers = await asyncio.gather(*(collect(engine, stream, "hello there") for stream in streams))
        assert len({text_of(answer) for answer in answers}) == 1
        for stream in streams:
            erased = await engine.close_stream(stream)
            assert erased.verified
            assert erased.bytes > 0

    play(scenario)


def test_more_streams_than_the_pin_has_are_refused_until_one_is_closed(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(engine: Engine) -> None:
        for _ in range(4):
            await engine.open_stream()
        with pytest.raises(NoFreeStream):
            await engine.open_stream()
        await engine.close_stream(2)
        assert await engine.open_stream() == 2

    play(scenario)


def test_what_cannot_be_served_is_refused_at_the_call(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        prompt = engine.prompt_tokens(user("hello"))
        with pytest.raises(ContextOverflow):
            engine.generate(stream, prompt, Sampling(max_tokens=CONTEXT_TOKENS))
        with pytest.raises(ContextOverflow):
            engine.prompt_tokens(user("x" * 1_000_000))
        for bad in (
            Sampling(max_tokens=0),
            Sampling(max_tokens=1, temperature=float("nan")),
            Sampling(max_tokens=1, top_p=0.0),
            Sampling(max_tokens=1, min_p=1.1),
            Sampling(max_tokens=1, seed=2**32),
            Sampling(max_tokens=1, stop=("",)),
        ):
            with pytest.raises(RefusedError):
                engine.generate(stream, prompt, bad)
        with pytest.raises(StreamBusy):
            await collect(engine, 3, "hello")  # not open
        with pytest.raises(StreamBusy):
            await engine.close_stream(3)
        assert await collect(engine, stream, "hello")

    play(scenario)


def test_a_stream_has_one_answer_at_a_time(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        prompt = engine.prompt_tokens(user("hello"))
        async with aclosing(
            engine.generate(stream, prompt, Sampling(max_tokens=400, temperature=0))
        ) as answer:
            await anext(answer)
            with pytest.raises(StreamBusy):
                engine.generate(stream, prompt, GREEDY)

    play(scenario)


def test_closing_the_iterator_stops_the_work_and_frees_the_stream_at_once(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        prompt = engine.prompt_tokens(user("hello"))
        expected = text_of(await collect(engine, stream, "hello"))
        for _ in range(20):
            answer = engine.generate(stream, prompt, Sampling(max_tokens=400, temperature=0))
            await anext(answer)
            await answer.aclose()
            # Nothing of the abandoned answer arrives in the next.
            assert text_of(await collect(engine, stream, "hello")) == expected
        assert not engine._worker._runner.busy

    play(scenario)


def test_cancelling_the_reader_cancels_the_answer(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        reader = asyncio.create_task(
            collect(engine, stream, "hello", Sampling(max_tokens=490, temperature=0))
        )
        await asyncio.sleep(0.02)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert (await engine.close_stream(stream)).verified
        assert not engine._worker._runner.busy

    play(scenario)


def test_closing_a_stream_ends_its_answer(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        answer = engine.generate(
            stream, engine.prompt_tokens(user("hello")), Sampling(max_tokens=490, temperature=0)
        )
        await anext(answer)
        assert (await engine.close_stream(stream)).verified
        with pytest.raises(StreamBusy):
            [piece async for piece in answer]

    play(scenario)


def test_a_slow_reader_gets_fewer_and_longer_pieces_and_loses_nothing(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        fast = await collect(engine, stream, "hello")
        slow = []
        async for piece in engine.generate(stream, engine.prompt_tokens(user("hello")), GREEDY):
            slow.append(piece)
            await asyncio.sleep(0.1)
        assert text_of(slow) == text_of(fast)
        assert sum(piece.tokens for piece in slow) == sum(piece.tokens for piece in fast)
        assert len(slow) < len(fast)

    play(scenario)


def test_a_request_that_waits_gets_the_stream_that_is_closed(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        streams = [await engine.open_stream() for _ in range(4)]
        waiting = [asyncio.create_task(engine.open_stream(wait_s=10)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(NoFreeStream):
            await engine.open_stream()
        for stream in (streams[2], streams[1]):
            await engine.close_stream(stream)
        assert await asyncio.gather(*waiting) == [2, 1]

    play(scenario)


def test_several_streams_are_opened_together_or_not_at_all(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        assert engine.streams == 4
        assert await engine.open_streams(3) == (0, 1, 2)
        with pytest.raises(NoFreeStream):
            await engine.open_streams(2)
        waiting = asyncio.create_task(engine.open_streams(2, wait_s=10))
        await asyncio.sleep(0)
        await engine.close_stream(0)
        assert await waiting == (0, 3)

    play(scenario)


def test_a_wait_ends_and_says_when_to_try_again(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        streams = [await engine.open_stream() for _ in range(4)]
        prompt = engine.prompt_tokens(user("hello " * 20))
        await collect(engine, streams[0], "hello " * 20)  # so that something is measured
        long = Sampling(max_tokens=400, temperature=0)
        async with aclosing(engine.generate(streams[0], prompt, long)) as answer:
            await anext(answer)
            with pytest.raises(NoFreeStream) as refused:
                await engine.open_stream(wait_s=0.01)
        assert 1 <= refused.value.retry_after_s <= 60

    play(scenario)


def test_cancelling_whoever_opens_or_closes_leaks_no_stream(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        for pause in (0, 1, 2, 3):
            opening = [asyncio.create_task(engine.open_stream(wait_s=10)) for _ in range(6)]
            for _ in range(pause):
                await asyncio.sleep(0)
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
        streams = [await engine.open_stream(wait_s=10) for _ in range(4)]
        assert sorted(streams) == [0, 1, 2, 3]
        closing = asyncio.create_task(engine.close_stream(2))
        await asyncio.sleep(0)
        closing.cancel()
        assert await engine.open_stream(wait_s=10) == 2

    play(scenario)


def test_an_answer_ends_with_an_error_when_its_time_is_over(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        prompt = engine.prompt_tokens(user("hello"))
        expected = text_of(await collect(engine, stream, "hello"))
        long = Sampling(max_tokens=490, temperature=0)
        with pytest.raises(DeadlinePassed):
            [piece async for piece in engine.generate(stream, prompt, long, deadline_s=0.02)]
        assert text_of(await collect(engine, stream, "hello")) == expected  # the stream is free at once
        pieces = [piece async for piece in engine.generate(stream, prompt, GREEDY, deadline_s=20)]
        assert text_of(pieces) == expected
        for deadline_s in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(RefusedError):
                engine.generate(stream, prompt, GREEDY, deadline_s=deadline_s)

    play(scenario)


def test_the_time_of_an_answer_runs_out_for_a_reader_that_does_not_read(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        prompt = engine.prompt_tokens(user("hello"))
        long = Sampling(max_tokens=490, temperature=0)
        answer = engine.generate(stream, prompt, long, deadline_s=0.02)
        await anext(answer)
        await asyncio.sleep(0.1)
        assert not engine._worker._runner.busy  # nobody generates for it any more
        with pytest.raises(DeadlinePassed):
            await anext(answer)

    play(scenario)


def test_an_answer_that_was_complete_in_time_is_the_reader_s_however_late_it_comes_for_the_end(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        prompt = engine.prompt_tokens(user("hello"))
        answer = engine.generate(stream, prompt, Sampling(max_tokens=100, temperature=0), deadline_s=15)
        await anext(answer)
        request = engine._requests[stream]
        for _ in range(1000):
            if request.complete:
                break
            await asyncio.sleep(0.01)
        engine._expire(stream, request)
        await engine.drain(deadline_s=0)
        assert [piece.finish async for piece in answer] == ["length"]

    play(scenario)


def test_draining_lets_what_runs_end_and_takes_nothing_new(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        streams = [await engine.open_stream() for _ in range(4)]
        running = asyncio.create_task(collect(engine, streams[0], "hello"))
        waiting = asyncio.create_task(engine.open_stream(wait_s=10))
        await asyncio.sleep(0)
        await engine.drain(deadline_s=10)
        assert (await running)[-1].finish == "length"
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(Draining):
            await engine.open_stream(wait_s=10)
        with pytest.raises(Draining):
            engine.generate(streams[1], engine.prompt_tokens(user("hello")), GREEDY)
        assert (await engine.close_stream(streams[0])).verified

    play(scenario)


def test_what_outlasts_the_drain_is_broken_off(play: Callable[[Scenario], None]) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        long = Sampling(max_tokens=490, temperature=0)
        running = asyncio.create_task(collect(engine, stream, "hello", long))
        await asyncio.sleep(0)
        await engine.drain(deadline_s=0.02)
        with pytest.raises(Draining):
            await running
        assert (await engine.close_stream(stream)).verified
        assert not engine._worker._runner.busy

    play(scenario)


def test_when_llama_cpp_fails_every_answer_ends_and_no_new_one_begins(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_runner: Runner) -> None:
        raise RuntimeError("not one of ours")

    async def scenario(engine: Engine) -> None:
        streams = [await engine.open_stream() for _ in range(2)]
        monkeypatch.setattr(Runner, "step", fail)
        results = await asyncio.gather(
            *(collect(engine, s, "hello") for s in streams), return_exceptions=True
        )
        assert all(isinstance(result, EngineFailed) for result in results)
        waiting = asyncio.create_task(engine.open_stream(wait_s=10))
        with pytest.raises(EngineFailed):
            await waiting
        assert (await engine.close_stream(streams[0])).verified  # what was there can still be erased

    play(scenario)


def test_an_erase_that_does_not_verify_ends_the_engine(
    play: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        await collect(engine, stream, "hello")
        monkeypatch.setattr(erasing, "overwrite", lambda *_: None)
        assert not (await engine.close_stream(stream)).verified
        with pytest.raises(EngineFailed):
            await engine.open_stream()

    play(scenario)


def test_an_idle_engine_runs_over_the_activations_of_closed_sessions(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(engine: Engine) -> None:
        stream = await engine.open_stream()
        await collect(engine, stream, "hello")
        await engine.close_stream(stream)
        runner = engine._worker._runner
        for _ in range(100):
            if not runner.tidy_due:
                return
            await asyncio.sleep(0.05)
        pytest.fail("nothing was tidied")

    play(scenario)


def test_a_closed_engine_refuses_and_closing_it_again_does_no_harm(manifest: Manifest, weights: Path) -> None:
    async def main() -> None:
        async with loaded(manifest, weights) as engine:
            await engine.open_stream()
            await engine.aclose()
            with pytest.raises(EngineFailed):
                await engine.open_stream()

    asyncio.run(main())


def test_a_pin_for_another_runtime_or_another_file_is_refused(
    manifest: Manifest, weights: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        other = manifest.model_copy(update={"runtime": Runtime(llama_cpp_python="0.3.1")})
        with pytest.raises(PinError):
            async with loaded(other, weights):
                pass
        junk = tmp_path / "junk.gguf"
        junk.write_bytes(b"GGUF" + bytes(1000))
        with pytest.raises(PinError):
            async with loaded(manifest, junk):
                pass

    asyncio.run(main())


def test_the_engine_does_not_start_where_erasing_does_nothing(
    manifest: Manifest, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with pytest.raises(EngineFailed):
            async with loaded(manifest, weights):
                pass

    monkeypatch.setattr(erasing, "overwrite", lambda *_: None)
    asyncio.run(main())


def test_nothing_is_written_to_the_standard_streams(
    play: Callable[[Scenario], None], capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario(engine: Engine) -> None:
        await collect(engine, await engine.open_stream(), "the secret word")

    play(scenario)
    assert capfd.readouterr() == ("", "")

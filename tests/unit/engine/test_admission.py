"""Waiting for a stream: in order, bounded in number and time, and without a trace when given up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from appliance.core.errors import RefusedError
from inference.engine.admission import Admission, Limits
from inference.engine.errors import Draining, NoFreeStream, QueueFull


def play(scenario: Callable[[Admission], Awaitable[None]], *, streams: int = 1, waiting: int = 3) -> None:
    async def main() -> None:
        admission = Admission(streams, Limits(waiting=waiting, wait_s=5.0), lambda ahead: 10 + ahead)
        async with asyncio.timeout(20):
            await scenario(admission)

    asyncio.run(main())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_whoever_waits_gets_a_stream_in_the_order_of_asking() -> None:
    async def scenario(admission: Admission) -> None:
        order: list[int] = []

        async def client(number: int) -> None:
            await admission.claim(1, 5.0)
            order.append(number)

        await admission.claim(1, 0)
        clients = [asyncio.create_task(client(number)) for number in range(3)]
        await settle()
        for _ in clients:
            admission.release()
            with pytest.raises(NoFreeStream):
                await admission.claim(1, 0)  # nobody slips in between
        await asyncio.gather(*clients)
        assert order == [0, 1, 2]

    play(scenario)


def test_no_stream_at_once_or_in_time_says_when_to_try_again() -> None:
    async def scenario(admission: Admission) -> None:
        await admission.claim(1, 0)
        for wait_s in (0.0, -1.0, float("nan"), 0.01):
            with pytest.raises(NoFreeStream) as refused:
                await admission.claim(1, wait_s)
            assert refused.value.retry_after_s == 10
        assert len(admission) == 0

    play(scenario)


def test_nobody_waits_longer_than_the_limit() -> None:
    async def main() -> None:
        admission = Admission(0, Limits(wait_s=0.01), lambda ahead: 1)
        async with asyncio.timeout(5):
            with pytest.raises(NoFreeStream):
                await admission.claim(1, 1000.0)

    asyncio.run(main())


def test_a_full_queue_is_refused_as_the_client_s_own_doing() -> None:
    async def scenario(admission: Admission) -> None:
        await admission.claim(1, 0)
        waiters = [asyncio.create_task(admission.claim(1, 5.0)) for _ in range(3)]
        await settle()
        with pytest.raises(QueueFull) as refused:
            await admission.claim(1, 5.0)
        assert refused.value.retry_after_s == 13
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        assert len(admission) == 0

    play(scenario)


def test_being_cancelled_in_the_queue_leaves_nothing_behind() -> None:
    async def scenario(admission: Admission) -> None:
        await admission.claim(1, 0)
        first, second = (asyncio.create_task(admission.claim(1, 5.0)) for _ in range(2))
        await settle()
        first.cancel()
        admission.release()  # in the same instant: the stream must go on to the second
        await second
        assert first.cancelling()
        with pytest.raises(asyncio.CancelledError):
            await first
        admission.release()
        await admission.claim(1, 0)

    play(scenario)


def test_a_stream_given_to_somebody_just_cancelled_goes_to_the_next() -> None:
    async def scenario(admission: Admission) -> None:
        await admission.claim(1, 0)
        first, second = (asyncio.create_task(admission.claim(1, 5.0)) for _ in range(2))
        await settle()
        admission.release()
        first.cancel()  # after it was given, before it knew
        await second
        with pytest.raises(asyncio.CancelledError):
            await first

    play(scenario)


def test_several_streams_are_had_together_and_nobody_overtakes() -> None:
    """Two who need two of three: with one each they would wait for ever."""

    async def scenario(admission: Admission) -> None:
        await admission.claim(3, 0)
        couples = [asyncio.create_task(admission.claim(2, 5.0)) for _ in range(2)]
        await settle()
        admission.release()
        with pytest.raises(NoFreeStream):
            await admission.claim(1, 0)  # it is kept for the first couple
        admission.release()
        await couples[0]
        admission.release()
        await settle()
        assert not couples[1].done()
        admission.release()
        await couples[1]

    play(scenario, streams=3)


def test_when_the_first_in_line_gives_up_those_behind_get_what_was_too_little_for_it() -> None:
    async def scenario(admission: Admission) -> None:
        await admission.claim(2, 0)
        couple = asyncio.create_task(admission.claim(2, 5.0))
        single = asyncio.create_task(admission.claim(1, 5.0))
        await settle()
        admission.release()
        await settle()
        assert not single.done()
        couple.cancel()
        await single
        with pytest.raises(NoFreeStream):
            await admission.claim(3, 5.0)  # never

    play(scenario, streams=2)


def test_draining_sends_everybody_away_and_takes_nobody() -> None:
    async def scenario(admission: Admission) -> None:
        await admission.claim(1, 0)
        waiter = asyncio.create_task(admission.claim(1, 5.0))
        await settle()
        admission.refuse(Draining)
        with pytest.raises(Draining):
            await waiter
        admission.release()
        with pytest.raises(Draining):
            await admission.claim(1, 5.0)

    play(scenario)


def test_any_order_of_giving_up_and_giving_back_loses_no_stream_and_no_wake_up() -> None:
    async def scenario(admission: Admission) -> None:
        chance = random.Random(7)
        held = 0

        async def client() -> None:
            nonlocal held
            await admission.claim(1, chance.choice((0.001, 0.01, 5.0)))
            held += 1
            assert held <= 2
            try:
                await asyncio.sleep(chance.choice((0, 0.001)))
            finally:
                held -= 1
                admission.release()

        clients = [asyncio.create_task(client()) for _ in range(300)]
        for task in chance.sample(clients, 100):
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            task.cancel()
        results = await asyncio.gather(*clients, return_exceptions=True)
        expected = NoFreeStream | QueueFull | asyncio.CancelledError | None
        assert all(isinstance(result, expected) for result in results)
        assert results.count(None) > 50
        assert (held, len(admission)) == (0, 0)
        await admission.claim(1, 0)
        await admission.claim(1, 0)

    play(scenario, streams=2, waiting=250)


@pytest.mark.parametrize(
    ("field", "value"),
    [("waiting", -1), ("waiting", 1025), ("wait_s", -0.1), ("wait_s", 300.1), ("wait_s", float("nan"))],
)
def test_limits_have_bounds(field: str, value: float) -> None:
    with pytest.raises(RefusedError) as refused:
        Limits(**{field: value})
    assert refused.value.field == field

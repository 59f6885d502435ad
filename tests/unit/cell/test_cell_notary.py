"""The client of the notary's line protocol by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from cell_notary_simulator import SimulatedNotary
from running_cell import CONFINEMENT

from appliance.core.names import random_id
from appliance.core.receipt import Draft, End, Erase, Opening, RuntimeFacts
from inference.cell.notary import Notary, NotaryUnavailableError, UnknownReceiptError

DRAFT = Draft(
    end=End.DELETED,
    requests=1,
    prompt_tokens=2,
    completion_tokens=3,
    retrieved_chunks=0,
    corpora=(),
    erase=Erase(bytes=4, verified=True),
)


def opening() -> Opening:
    return Opening(
        session=random_id(),
        models=("a" * 64,),
        runtime=RuntimeFacts(appliance="0.1.0", llama_cpp="b" * 64, generation=1),
        confinement=CONFINEMENT,
    )


@pytest.fixture
def simulated() -> Iterator[SimulatedNotary]:
    notary = SimulatedNotary()
    yield notary
    notary.close()


def run(simulated: SimulatedNotary, talk: Callable[[Notary], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        notary = await Notary.over(simulated.near)
        try:
            await talk(notary)
        finally:
            await notary.aclose()

    asyncio.run(main())


def test_open_close_and_get_speak_the_protocol(simulated: SimulatedNotary) -> None:
    async def talk(notary: Notary) -> None:
        receipt, grant = await notary.open(opening())
        assert grant is None
        with pytest.raises(UnknownReceiptError):
            await notary.get(receipt)
        signed = await notary.close(receipt, DRAFT)
        assert signed == await notary.get(receipt) == simulated.signed[receipt]

    run(simulated, talk)
    requests = [json.loads(line) for line in simulated.lines]
    assert [(request["id"], request["op"]) for request in requests] == [
        (1, "open"),
        (2, "get"),
        (3, "close"),
        (4, "get"),
    ]


def test_a_caller_that_gives_up_leaves_no_reply_behind_for_the_next(simulated: SimulatedNotary) -> None:
    async def talk(notary: Notary) -> None:
        simulated.may_open.clear()
        asking = asyncio.create_task(notary.open(opening()))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        simulated.may_open.set()
        with pytest.raises(UnknownReceiptError):
            await notary.get("0" * 32)
        assert not notary.lost.is_set()

    run(simulated, talk)


def test_many_callers_at_once_each_get_their_own_reply(simulated: SimulatedNotary) -> None:
    async def talk(notary: Notary) -> None:
        openings = [opening() for _ in range(50)]
        receipts = await asyncio.gather(*(notary.open(o) for o in openings))
        assert [simulated.opened[opened.receipt] for opened in receipts] == openings

    run(simulated, talk)


def test_after_the_connection_has_ended_everything_is_unavailable(simulated: SimulatedNotary) -> None:
    async def talk(notary: Notary) -> None:
        simulated.may_open.clear()
        asking = asyncio.create_task(notary.open(opening()))
        await asyncio.sleep(0.05)
        simulated.hang_up()
        with pytest.raises(NotaryUnavailableError):
            await asking
        assert notary.lost.is_set()
        with pytest.raises(NotaryUnavailableError):
            await notary.get("0" * 32)

    run(simulated, talk)


@pytest.mark.parametrize(
    "reply",
    [
        b'{"id":2,"ok":true,"result":{"receipt":"x"}}\n',
        b'{"id":1,"ok":true,"result":{}}\n',
        b'{"id":1,"ok":true,"result":{"receipt":7}}\n',
        b'{"id":1,"ok":true,"result":{"receipt":"x","grant":{"tokens":0}}}\n',
        b"[]\n",
        b"not json\n",
        b"\xff\n",
        b"x" * (2**20 + 10) + b"\n",
    ],
)
def test_a_reply_that_is_not_one_ends_the_trust(simulated: SimulatedNotary, reply: bytes) -> None:
    async def talk(notary: Notary) -> None:
        simulated.may_open.clear()
        asking = asyncio.create_task(notary.open(opening()))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(simulated.say_bytes, reply)
        with pytest.raises(NotaryUnavailableError):
            await asking
        assert notary.lost.is_set()

    run(simulated, talk)

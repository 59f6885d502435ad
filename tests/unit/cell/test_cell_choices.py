"""Several choices from one prompt: one session of several streams, one receipt, one end."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import openai
import pytest
from running_cell import RunningCell, StartCell, ask, manifest
from simulated_engine import ANSWER, SimulatedEngine
from test_cell_sessions import code, open_session, until_text

from appliance.core.bundle import Limits
from appliance.core.receipt import SignedReceipt

CHAT = "/v1/chat/completions"


def test_choices_are_numbered_and_share_one_receipt(cell: RunningCell) -> None:
    with cell.client() as client:
        response = client.post(CHAT, json=ask(n=3))
    answer = response.json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert all(choice["message"]["content"] == ANSWER for choice in answer["choices"])
    assert all(choice["finish_reason"] == "stop" for choice in answer["choices"])
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 15, "total_tokens": 20}
    receipt = SignedReceipt.parse(answer["receipt"]).receipt
    assert receipt.id == response.headers["x-receipt-id"]
    assert (receipt.requests, receipt.prompt_tokens, receipt.completion_tokens) == (1, 5, 15)
    assert receipt.erase.bytes == 3 * 40
    assert len(cell.notary.opened) == 1
    assert cell.engine.held == {}


def test_streamed_choices_come_side_by_side_and_each_has_its_beginning_and_end(cell: RunningCell) -> None:
    cell.engine.pace_s = 0.01
    with cell.client() as client:
        lines = client.post(CHAT, json=ask(n=2, stream=True)).text.split("\n\n")
    events = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert [event["index"] for event in events[:2]] == [0, 1]
    assert all(event["delta"].get("role") == "assistant" for event in events[:2])
    for index in (0, 1):
        own = [event for event in events if event["index"] == index]
        assert "".join(event["delta"].get("content", "") for event in own) == ANSWER
        assert [event["finish_reason"] for event in own] == [None] * (len(own) - 1) + ["stop"]
    order = [event["index"] for event in events if event["delta"].get("content")]
    assert order != sorted(order)


def test_choices_draw_from_seeds_that_differ_and_begin_with_the_one_given(cell: RunningCell) -> None:
    with cell.client() as client:
        client.post(CHAT, json=ask(n=3, seed=2**32 - 2))
        client.post(CHAT, json=ask(n=2))
    assert [sampling.seed for sampling in cell.engine.sampled] == [2**32 - 2, 2**32 - 1, 0, None, None]


def test_each_choice_counts_as_a_session_of_the_limit(cell: RunningCell) -> None:
    with cell.client() as client:
        open_session(client)
        assert client.post(CHAT, json=ask(n=2)).status_code == 200
        open_session(client)
        refused = client.post(CHAT, json=ask(n=2))
        assert (refused.status_code, code(refused)) == (429, "too_many_sessions")
        impossible = client.post(CHAT, json=ask(n=4))
        assert (impossible.status_code, code(impossible)) == (400, "too_many_choices")


def test_more_choices_than_the_model_has_streams_are_refused(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(sessions=8), models=(manifest(max_sessions=2),))
    with cell.client() as client:
        assert code(client.post(CHAT, json=ask(n=3))) == "too_many_choices"
        assert client.post(CHAT, json=ask(n=2)).status_code == 200


def test_choices_get_their_streams_together_or_none(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(sessions=8), models=(manifest(max_sessions=3),))
    with cell.client() as client:
        open_session(client)
        open_session(client)
        refused = client.post(CHAT, json=ask(n=2))
        assert (refused.status_code, code(refused)) == (503, "no_stream")
    assert len(cell.engine.held) == 2
    assert len(cell.notary.opened) == 2


def test_a_notary_that_refuses_gives_every_stream_back(cell: RunningCell) -> None:
    cell.notary.refuse = {"open"}
    with cell.client() as client:
        assert code(client.post(CHAT, json=ask(n=3))) == "notary_unavailable"
    assert (cell.engine.decoded, cell.engine.held) == (0, {})


def test_a_kept_session_gives_one_choice(cell: RunningCell) -> None:
    with cell.client() as client:
        header = open_session(client)
        refused = client.post(CHAT, json=ask(n=2), headers=header)
        assert (refused.status_code, code(refused)) == (400, "choices_in_session")
        assert client.post(CHAT, json=ask(n=1), headers=header).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_gives_up_on_one_choice_ends_them_all(cell: RunningCell, *, stream: bool) -> None:
    cell.engine.pace_s, cell.engine.fail_after = 0.01, 2
    with cell.client() as client:
        assert '"code":"engine_failed"' in client.post(CHAT, json=ask(n=3, stream=stream)).text
    assert cell.notary.await_ends(1) == ["failed"]
    assert (cell.engine.busy, cell.engine.held) == (set(), {})


def test_a_client_that_leaves_ends_every_choice(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=ask(n=2), timeout=0.3)
    assert cell.notary.await_ends(1) == ["disconnected"]
    with cell.client() as client:
        with client.stream("POST", CHAT, json=ask(n=2, stream=True)) as running:
            until_text(running)
    assert cell.notary.await_ends(2) == ["disconnected", "disconnected"]
    assert (cell.engine.busy, cell.engine.held) == (set(), {})


def test_a_session_of_several_streams_is_erased_only_if_all_of_them_are(
    cell: RunningCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = SimulatedEngine.close_stream
    closed: list[int] = []

    async def close_badly(engine: SimulatedEngine, stream: int) -> Any:
        closed.append(stream)
        engine.erase_verified = len(closed) != 1
        return await close(engine, stream)

    monkeypatch.setattr(SimulatedEngine, "close_stream", close_badly)
    with cell.client() as client:
        receipt = client.post(CHAT, json=ask(n=3)).json()["receipt"]["receipt"]
    assert receipt["erase"]["verified"] is False
    assert len(closed) == 3
    assert cell.await_exit() == 14


def test_the_openai_package_reads_choices(cell: RunningCell, sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    whole = sdk.chat.completions.create(model="tiny", messages=messages, n=2)
    assert [choice.message.content for choice in whole.choices] == [ANSWER] * 2
    texts = {0: "", 1: ""}
    for chunk in sdk.chat.completions.create(model="tiny", messages=messages, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: ANSWER, 1: ANSWER}


def test_a_slow_reader_of_several_choices_gets_every_byte_in_order(cell: RunningCell) -> None:
    cell.engine.answer = " ".join(["word" * 4000] * 60)
    with cell.client() as client, client.stream("POST", CHAT, json=ask(n=3, stream=True)) as running:
        time.sleep(0.5)  # the way is full by now
        lines = [line for line in running.iter_lines() if line.startswith("data: {")]
    events = [json.loads(line[6:])["choices"][0] for line in lines]
    for index in range(3):
        own = [event["delta"].get("content", "") for event in events if event["index"] == index]
        assert "".join(own) == cell.engine.answer

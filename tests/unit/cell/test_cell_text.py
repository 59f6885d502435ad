"""Text completions: the same order, sessions, limits and receipts as chat, another spelling."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from running_cell import RunningCell, StartCell, manifest
from simulated_engine import ANSWER
from test_cell_sessions import code, open_session

from appliance.core.bundle import Limits
from appliance.core.receipt import SignedReceipt

TEXT = "/v1/completions"
PIN = manifest().pin_id


def ask(prompt: Any = "once upon a time", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, **fields}


def test_a_whole_answer_names_model_and_pin_and_ends_with_its_receipt(cell: RunningCell) -> None:
    with cell.client() as client:
        response = client.post(TEXT, json=ask())
    answer = response.json()
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"], answer["pin"]) == ("text_completion", "tiny", PIN)
    assert answer["choices"] == [{"text": ANSWER, "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    receipt = SignedReceipt.parse(answer["receipt"]).receipt
    assert receipt.id == response.headers["x-receipt-id"]
    assert (receipt.end, receipt.prompt_tokens, receipt.completion_tokens) == ("one_shot", 5, 5)
    assert cell.engine.held == {}


def test_a_stream_has_text_finish_usage_receipt_and_done_in_this_order(cell: RunningCell) -> None:
    request = ask(stream=True, stream_options={"include_usage": True}, n=2)
    with cell.client() as client:
        response = client.post(TEXT, json=request)
    lines = [line for line in response.text.split("\n") if line]
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert {chunk["object"] for chunk in data} == {"text_completion"}
    for index in (0, 1):
        own = [chunk["choices"][0] for chunk in data[:-1] if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in own) == ANSWER
        assert own[-1]["finish_reason"] == "stop"
    assert (data[-1]["choices"], data[-1]["usage"]["total_tokens"]) == ([], 15)
    assert lines[-2].startswith(": receipt ")
    assert lines[-1] == "data: [DONE]"


def test_a_prompt_in_tokens_is_decoded_as_it_is_and_a_text_begins_as_the_model_wants(
    cell: RunningCell,
) -> None:
    with cell.client() as client:
        client.post(TEXT, json=ask([5, 0, 999]))
        client.post(TEXT, json=ask("abc de"))
    assert cell.engine.prompts == [[5, 0, 999], [1, 3, 2]]


def test_sixteen_tokens_are_the_default(cell: RunningCell) -> None:
    with cell.client() as client:
        client.post(TEXT, json=ask())
        client.post(TEXT, json=ask([1] * 250))
        client.post(TEXT, json=ask(max_tokens=40))
    assert [sampling.max_tokens for sampling in cell.engine.sampled] == [16, 6, 40]


def test_a_kept_session_takes_text_as_well_as_chat(cell: RunningCell) -> None:
    with cell.client() as client:
        header = open_session(client)
        answer = client.post(TEXT, json=ask(), headers=header)
        assert "receipt" not in answer.json()
        assert code(client.post(TEXT, json=ask(n=2), headers=header)) == "choices_in_session"
        assert client.post(TEXT, json=ask(stream=True), headers=header).text.endswith("data: [DONE]\n\n")
    assert list(cell.engine.held) == [0]


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_decoded_before_the_open_record_is_durable(cell: RunningCell, *, stream: bool) -> None:
    cell.notary.refuse = {"open"}
    with cell.client() as client:
        refused = client.post(TEXT, json=ask(stream=stream))
    assert (refused.status_code, code(refused)) == (503, "notary_unavailable")
    assert cell.engine.decoded == 0


def test_a_disconnect_ends_the_session(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as client, client.stream("POST", TEXT, json=ask(stream=True)) as running:
        next(running.iter_lines())
    assert cell.notary.await_ends(1) == ["disconnected"]


def test_the_openai_package_completes_text(sdk: openai.OpenAI) -> None:
    whole = sdk.completions.create(model="tiny", prompt="once", logprobs=1, n=2)
    assert [choice.text for choice in whole.choices] == [ANSWER] * 2
    assert whole.choices[0].logprobs is not None
    assert "".join(whole.choices[0].logprobs.tokens or []) == ANSWER
    stream = sdk.completions.create(model="tiny", prompt=[1, 2, 3], stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == ANSWER


def test_text_becomes_tokens_and_tokens_text_without_a_session(cell: RunningCell) -> None:
    with cell.client() as client:
        plain = client.post("/tokenize", json={"content": "once upon"})
        begun = client.post("/tokenize", json={"content": "once upon", "add_special": True})
        text = client.post("/detokenize", json={"tokens": [4, 2]})
        assert client.post("/tokenize", json={"content": ""}).json() == {"tokens": []}
        assert client.post("/detokenize", json={"tokens": []}).json() == {"content": ""}
    assert (plain.json(), begun.json()) == ({"tokens": [4, 4]}, {"tokens": [1, 4, 4]})
    assert text.json() == {"content": "xxxx xx"}
    assert plain.headers["cache-control"] == "no-store"
    assert "x-receipt-id" not in plain.headers
    assert (cell.notary.opened, cell.engine.decoded, cell.engine.held) == ({}, 0, {})


def test_tokenised_text_is_content_so_the_cell_does_not_stay_for_more(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(cell_idle_s=0))
    with cell.client() as client:
        assert client.post("/tokenize", json={"content": "secret"}).status_code == 200
    assert cell.await_exit(within_s=3) == 0

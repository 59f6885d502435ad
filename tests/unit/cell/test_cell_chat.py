"""The OpenAI API as a cell speaks it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from running_cell import RunningCell, StartCell, ask, manifest
from simulated_engine import ANSWER

from appliance.core.bundle import Limits
from appliance.core.receipt import SignedReceipt

PIN = manifest().pin_id


def events(lines: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Split a stream into its decoded data events and everything else that is not blank."""
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return data, [line for line in lines if line and not line.startswith("data: {")]


def test_a_whole_answer_names_model_and_pin_and_ends_with_its_receipt(cell: RunningCell) -> None:
    with cell.client() as client:
        response = client.post("/v1/chat/completions", json=ask())
    assert response.status_code == 200
    answer = response.json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ANSWER, "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert (answer["model"], answer["pin"], answer["system_fingerprint"]) == ("tiny", PIN, PIN[:16])
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    assert list(answer)[-1] == "receipt"
    receipt = SignedReceipt.parse(answer["receipt"]).receipt
    assert receipt.id == response.headers["x-receipt-id"]
    assert (receipt.end, receipt.requests, receipt.prompt_tokens, receipt.completion_tokens) == (
        "one_shot",
        1,
        5,
        5,
    )
    assert (receipt.models, receipt.runtime.generation) == ((PIN,), 7)
    assert receipt.erase.bytes == 40
    assert receipt.erase.verified
    assert cell.engine.held == {}
    assert cell.engine.threads == 2
    assert response.headers["cache-control"] == "no-store"
    assert "server" not in response.headers


def test_a_stream_has_role_text_finish_usage_receipt_and_done_in_this_order(cell: RunningCell) -> None:
    request = ask(stream=True, stream_options={"include_usage": True})
    with cell.client() as client, client.stream("POST", "/v1/chat/completions", json=request) as response:
        lines = list(response.iter_lines())
    data, rest = events(lines)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert data[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in data[:-1]) == ANSWER
    assert data[-2]["choices"][0]["finish_reason"] == "stop"
    assert data[-1]["choices"] == []
    assert data[-1]["usage"]["total_tokens"] == 10
    assert all(chunk["usage"] is None and chunk["pin"] == PIN for chunk in data[:-1])
    assert rest[0].startswith(": receipt ")
    assert rest[1:] == ["data: [DONE]"]
    receipt = SignedReceipt.parse_canonical(rest[0].removeprefix(": receipt ").encode()).receipt
    assert receipt.id == response.headers["x-receipt-id"]
    assert receipt.end == "one_shot"


def test_text_of_every_script_comes_back_unchanged(cell: RunningCell) -> None:
    cell.engine.answer = 'é "quoted" \\ \u2028 😀 \x00\n\r done'
    with cell.client() as client:
        whole = client.post("/v1/chat/completions", json=ask())
        streamed = client.post("/v1/chat/completions", json=ask(stream=True))
    assert whole.json()["choices"][0]["message"]["content"] == cell.engine.answer
    data, _ = events(streamed.text.split("\n"))
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in data]
    assert "".join(texts) == cell.engine.answer


def test_a_response_format_reaches_the_engine_as_a_grammar(cell: RunningCell) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    formats = [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}},
    ]
    with cell.client() as client:
        for value in formats:
            assert client.post("/v1/chat/completions", json=ask(response_format=value)).status_code == 200
    grammars = [sampling.grammar for sampling in cell.engine.sampled]
    assert grammars[0] is None
    texts = (b'{"a":1}', b'{"city":"Ulm"}')
    fits = [
        [(state := grammar.walk(grammar.start, text)) is not None and state.accepting for text in texts]
        for grammar in grammars[1:]
        if grammar is not None
    ]
    assert fits == [[True, True], [False, True]]


def test_only_answers_that_are_sent_whole_are_guessed_unless_the_policy_says_so(
    start_cell: StartCell,
) -> None:
    for limits, expected in ((Limits(), [True, False]), (Limits(guess_in_streams=True), [True, True])):
        cell = start_cell(limits=limits)
        with cell.client() as client:
            for stream in (False, True):
                assert client.post("/v1/chat/completions", json=ask(stream=stream)).status_code == 200
        assert [sampling.lookup for sampling in cell.engine.sampled] == expected


def test_what_the_system_says_is_shared_between_sessions_only_if_the_policy_says_so(
    start_cell: StartCell,
) -> None:
    messages = [{"role": "system", "content": "be very brief"}, {"role": "user", "content": "one two"}]
    for limits, expected in ((Limits(), 0), (Limits(share_prefixes=True), 3)):
        cell = start_cell(limits=limits)
        with cell.client() as client:
            assert client.post("/v1/chat/completions", json=ask(messages=messages)).status_code == 200
        assert cell.engine.shared == [expected]


def test_sampling_fields_reach_the_engine_within_its_bounds(cell: RunningCell) -> None:
    fields = {"max_completion_tokens": 3, "temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.05}
    with cell.client() as client:
        answer = client.post("/v1/chat/completions", json=ask(**fields, seed=-1, stop="x", n=1, user="u"))
        client.post("/v1/chat/completions", json=ask(max_tokens=None, stop=["a", "b"]))
    first, second = cell.engine.sampled
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert (first.max_tokens, first.temperature, first.top_p, first.top_k) == (3, 0.0, 0.5, 40)
    assert (first.min_p, first.stop) == (0.05, ("x",))
    assert first.seed is not None
    assert 0 <= first.seed < 2**32
    assert (second.max_tokens, second.stop, second.seed) == (64, ("a", "b"), None)


def test_penalties_bias_and_log_probabilities_reach_the_engine(cell: RunningCell) -> None:
    fields = {"frequency_penalty": -2, "presence_penalty": 1.5, "logit_bias": {"0": -100, "999": 0.5}}
    with cell.client() as client:
        for extra in ({"logprobs": True, "top_logprobs": 20}, {"logprobs": True}, {}):
            assert client.post("/v1/chat/completions", json=ask(**fields, **extra)).status_code == 200
    first, *_ = cell.engine.sampled
    assert (first.frequency_penalty, first.presence_penalty) == (-2.0, 1.5)
    assert first.logit_bias == ((0, -100.0), (999, 0.5))
    assert [sampling.logprobs for sampling in cell.engine.sampled] == [20, 0, None]


def test_an_answer_without_a_stated_length_takes_what_the_context_has_left(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(answer_tokens=4096))
    with cell.client() as client:
        assert client.post("/v1/chat/completions", json=ask("a " * 250)).status_code == 200
        refused = client.post("/v1/chat/completions", json=ask("a " * 250, max_tokens=100))
    assert cell.engine.sampled[0].max_tokens == 256 - 251
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert len(cell.notary.opened) == 1


def test_messages_may_come_in_parts_and_from_a_developer(cell: RunningCell) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    echoed = {"role": "assistant", "content": "hm", "refusal": None, "tool_calls": None, "annotations": []}
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}, echoed]
    with cell.client() as client:
        assert client.post("/v1/chat/completions", json=ask(messages=messages) | {}).status_code == 200
    assert cell.engine.seen == [
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "one\ntwo"},
            {"role": "assistant", "content": "hm"},
        ]
    ]


def test_models_are_listed_with_their_pin(cell: RunningCell) -> None:
    with cell.client() as client:
        listed = client.get("/v1/models").json()
        one = client.get("/v1/models/tiny").json()
        assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
    assert listed == {"object": "list", "data": [one]}
    assert one == {"id": "tiny", "object": "model", "created": 0, "owned_by": "operator", "pin": PIN}


def test_the_openai_package_works_unmodified(sdk: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    assert [model.id for model in sdk.models.list()] == ["tiny"]
    assert sdk.models.retrieve("tiny").id == "tiny"
    whole = sdk.chat.completions.create(model="tiny", messages=messages)
    assert whole.choices[0].message.content == ANSWER
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5
    again = [*messages, whole.choices[0].message.model_dump(), {"role": "user", "content": "and?"}]
    assert sdk.chat.completions.create(model="tiny", messages=again).choices[0].finish_reason == "stop"
    options: Any = {"include_usage": True}
    stream = sdk.chat.completions.create(model="tiny", messages=messages, stream=True, stream_options=options)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-1].usage is not None
    with sdk.chat.completions.stream(model="tiny", messages=messages) as managed:
        assert managed.get_final_completion().choices[0].message.content == ANSWER


def test_the_openai_package_raises_its_own_errors(sdk: openai.OpenAI, cell: RunningCell) -> None:
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.chat.completions.create(model="other", messages=messages)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as unsupported:
        sdk.chat.completions.create(model="tiny", messages=messages, store=True)
    assert (unsupported.value.code, unsupported.value.param) == ("unsupported_parameter", "store")
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()
    cell.engine.fail_after = 2
    with pytest.raises(openai.APIError) as failed:
        list(sdk.chat.completions.create(model="tiny", messages=messages, stream=True))
    assert failed.value.code == "engine_failed"

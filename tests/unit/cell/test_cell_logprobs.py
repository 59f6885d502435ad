"""Log probabilities in the OpenAI API's exact form, and nothing of them where nobody asked."""

from __future__ import annotations

import json
from typing import Any

import openai
from running_cell import RunningCell, ask
from simulated_engine import ANSWER

CHAT = "/v1/chat/completions"
WORDS = ["the", " answer", " is", " forty", " two"]


def chat_entry(word: str, likeliest: int) -> dict[str, Any]:
    others = [{"token": "\ufffd", "logprob": -1.0 - rank, "bytes": [200 + rank]} for rank in range(likeliest)]
    return {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": others}


def test_a_chat_answer_has_an_entry_for_each_token(cell: RunningCell) -> None:
    with cell.client() as client:
        answer = client.post(CHAT, json=ask(logprobs=True, top_logprobs=2)).json()
        plain = client.post(CHAT, json=ask()).json()
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs == {"content": [chat_entry(word, 2) for word in WORDS], "refusal": None}
    assert plain["choices"][0]["logprobs"] is None


def test_streamed_entries_come_with_their_text(cell: RunningCell) -> None:
    with cell.client() as client:
        lines = client.post(CHAT, json=ask(logprobs=True, stream=True)).text.split("\n")
    events = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    told = [(event["delta"]["content"], event["logprobs"]) for event in events[1:-1]]
    assert told == [(word, {"content": [chat_entry(word, 0)], "refusal": None}) for word in WORDS]
    assert (events[0]["logprobs"], events[-1]["logprobs"]) == (None, None)


def test_a_text_answer_has_parallel_lists_with_the_token_among_its_likeliest(cell: RunningCell) -> None:
    request = {"model": "tiny", "prompt": "once", "logprobs": 2}
    with cell.client() as client:
        logprobs = client.post("/v1/completions", json=request).json()["choices"][0]["logprobs"]
        bare = client.post("/v1/completions", json=request | {"logprobs": 0}).json()
    assert logprobs["tokens"] == WORDS
    assert logprobs["token_logprobs"] == [-0.5] * 5
    # Two tokens that are half a character each stay apart.
    assert logprobs["top_logprobs"][1] == {"bytes:\\xc8": -1.0, "bytes:\\xc9": -2.0, " answer": -0.5}
    assert logprobs["text_offset"] == [0] * 5
    assert bare["choices"][0]["logprobs"]["top_logprobs"] == [{word: -0.5} for word in WORDS]


def test_the_openai_package_reads_log_probabilities(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    whole = sdk.chat.completions.create(model="tiny", messages=messages, logprobs=True, top_logprobs=1)
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    assert "".join(entry.token for entry in whole.choices[0].logprobs.content) == ANSWER
    assert whole.choices[0].logprobs.content[0].top_logprobs[0].bytes == [200]
    with sdk.chat.completions.stream(model="tiny", messages=messages, logprobs=True) as managed:
        final = managed.get_final_completion().choices[0]
    assert final.logprobs is not None
    assert [entry.token for entry in final.logprobs.content or []] == WORDS

"""Every way in which a cell says no, and that none of them repeats what it was told."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_cell import ADDRESSES, TOKENS, RunningCell, StartCell, ask, credentials

from appliance.core.bundle import Limits
from inference.cell import strict_json
from inference.cell.errors import TABLE, Refusal

CHAT = "/v1/chat/completions"
CANARY = "kanarie-7f3a"


def held_to(schema: object, **fields: object) -> dict[str, Any]:
    """Return the field that asks for answers that fit a schema."""
    named = {"name": "reply", "schema": schema} | fields
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@pytest.fixture(scope="module")
def shared_cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCell]:
    """One cell for all requests that must leave no trace in it."""
    limits = Limits(body_bytes=65_536, answer_tokens=64)
    cell = RunningCell(tmp_path_factory.mktemp("cell"), limits=limits).start()
    yield cell
    cell.close()


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, code and param after checking the form."""
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    entry = TABLE[body["error"]["code"]]
    assert (response.status_code, body["error"]["message"]) == (entry.status, entry.message)
    assert ("retry-after" in response.headers) == entry.retry
    return response.status_code, body["error"]["code"], body["error"]["param"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Peer-Address": ADDRESSES["laptop"]},
        {"Authorization": f"Bearer {TOKENS['laptop']}"},
        {"X-Peer-Address": ADDRESSES["laptop"], "Authorization": "Bearer wrong"},
        {"X-Peer-Address": ADDRESSES["laptop"], "Authorization": "Bearer"},
        {"X-Peer-Address": ADDRESSES["laptop"], "Authorization": f"Basic {TOKENS['laptop']}"},
        {"X-Peer-Address": ADDRESSES["phone"], "Authorization": f"Bearer {TOKENS['laptop']}"},
        {"X-Peer-Address": "10.8.0.9", "Authorization": f"Bearer {TOKENS['laptop']}"},
        {"X-Peer-Address": "10.8.0.2, 10.8.0.3", "Authorization": f"Bearer {TOKENS['laptop']}"},
        {"X-Peer-Address": "", "Authorization": "Bearer x"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/", "/docs", "/openapi.json", "/nothing"])
def test_no_path_answers_without_the_token_of_the_device_at_that_address(
    shared_cell: RunningCell, headers: dict[str, str], path: str
) -> None:
    transport = httpx.HTTPTransport(uds=str(shared_cell.path))
    with httpx.Client(transport=transport, base_url="http://cell", headers=headers) as client:
        assert error(client.get(path)) == (401, "invalid_api_key", None)


def test_a_header_that_is_there_twice_admits_nobody(shared_cell: RunningCell) -> None:
    twice = [*credentials().items(), ("X-Peer-Address", ADDRESSES["phone"])]
    transport = httpx.HTTPTransport(uds=str(shared_cell.path))
    with httpx.Client(transport=transport, base_url="http://cell", headers=twice) as client:
        assert error(client.get("/v1/models")) == (401, "invalid_api_key", None)


def test_a_device_may_come_from_its_ipv6_address_however_it_is_spelled(shared_cell: RunningCell) -> None:
    for address in ("fd00:8::2", "FD00:8:0:0::2"):
        with shared_cell.client(**{"X-Peer-Address": address}) as client:
            assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", (404, "not_found", None)),
        ("GET", "/docs", (404, "not_found", None)),
        ("GET", "/openapi.json", (404, "not_found", None)),
        ("GET", "/v1/models/", (404, "not_found", None)),
        ("POST", "/v1/embeddings", (404, "not_found", None)),
        ("GET", CHAT, (405, "method_not_allowed", None)),
        ("DELETE", "/v1/models", (405, "method_not_allowed", None)),
        ("PUT", "/v1/sessions/" + "0" * 32, (405, "method_not_allowed", None)),
        ("GET", "/v1/sessions/" + "0" * 32, (404, "session_not_found", None)),
        ("DELETE", "/v1/sessions/x", (404, "session_not_found", None)),
        ("GET", "/v1/receipts/" + "0" * 32, (404, "receipt_not_found", None)),
        ("GET", "/v1/receipts/" + "0" * 31 + "%0a", (404, "receipt_not_found", None)),
        ("GET", "/v1/receipts/" + "0" * 32 + "/proof", (404, "receipt_not_found", None)),
        ("GET", "/v1/receipts/x/proof", (404, "receipt_not_found", None)),
    ],
)
def test_unknown_paths_methods_and_ids(
    shared_cell: RunningCell, method: str, path: str, expected: tuple[int, str, None]
) -> None:
    with shared_cell.client() as client:
        assert error(client.request(method, path)) == expected


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, b"{}", (415, "unsupported_media_type", None)),
        ({"Content-Type": "text/plain"}, b"{}", (415, "unsupported_media_type", None)),
        (
            {"Content-Type": "multipart/form-data; boundary=x"},
            b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n\r\n--x--\r\n',
            (415, "unsupported_media_type", None),
        ),
        (JSON | {"Content-Encoding": "gzip"}, b"\x1f\x8b", (415, "unsupported_encoding", None)),
        (JSON | {"Content-Encoding": "identity, br"}, b"{}", (415, "unsupported_encoding", None)),
        (JSON, b"", (400, "invalid_json", None)),
        (JSON, b"{", (400, "invalid_json", None)),
        (JSON, b"[]", (400, "invalid_json", None)),
        (JSON, b'"text"', (400, "invalid_json", None)),
        (JSON, b"\xef\xbb\xbf{}", (400, "invalid_json", None)),
        (JSON, b'{"model": "\xff"}', (400, "invalid_json", None)),
        (JSON, rb'{"model": "\ud800"}', (400, "invalid_json", None)),
        (JSON, rb'{"\udfff": 1}', (400, "invalid_json", None)),
        (JSON, b'{"model": "a", "model": "b"}', (400, "invalid_json", None)),
        (JSON, b'{"temperature": NaN}', (400, "invalid_json", None)),
        (JSON, b'{"temperature": -Infinity}', (400, "invalid_json", None)),
        (JSON, b'{"temperature": 1e999}', (400, "invalid_json", None)),
        (JSON, b'{"seed": ' + b"9" * 5000 + b"}", (400, "invalid_json", None)),
        (JSON, b'{"messages": ' + b"[" * 32 + b"]" * 32 + b"}", (400, "invalid_json", None)),
        (JSON, b"[" * 60_000, (400, "invalid_json", None)),
        (JSON, b'{"a":' * 10_000, (400, "invalid_json", None)),
        (JSON, b'{"a": "' + b"x" * 70_000 + b'"}', (413, "body_too_large", None)),
    ],
)
def test_bad_bodies(
    shared_cell: RunningCell, headers: dict[str, str], body: bytes, expected: tuple[int, str, None]
) -> None:
    with shared_cell.client() as client:
        assert error(client.post(CHAT, headers=headers, content=body)) == expected
        assert client.get("/v1/models").status_code == 200
    assert shared_cell.notary.opened == {}


def test_a_chunked_body_is_bounded_as_well(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(body_bytes=2048))

    def endless() -> Iterator[bytes]:
        yield b"{"
        while True:
            yield b" " * 1024

    with cell.client() as client:
        assert error(client.post(CHAT, headers=JSON, content=endless())) == (413, "body_too_large", None)


def test_a_body_that_stops_coming_is_given_up(cell: RunningCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.cell.body.TIMEOUT_S", 0.1)
    head = "".join(f"{name}: {value}\r\n" for name, value in (credentials() | JSON).items())
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(cell.path))
        slow.settimeout(5)
        slow.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: cell\r\nContent-Length: 10\r\n{head}\r\n{{".encode())
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer


MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": None}, (400, "missing_parameter", "model")),
        ({"model": 1}, (400, "invalid_value", "model")),
        ({"model": "gpt-5"}, (404, "model_not_found", "model")),
        ({"messages": None}, (400, "missing_parameter", "messages")),
        ({"messages": []}, (400, "invalid_value", "messages")),
        ({"messages": "hi"}, (400, "invalid_value", "messages")),
        ({"messages": ["hi"]}, (400, "invalid_value", "messages")),
        ({"messages": [{"role": "user"}]}, (400, "unsupported_content", "messages")),
        ({"messages": [{"role": "user", "content": 1}]}, (400, "unsupported_content", "messages")),
        ({"messages": [{"role": "user", "content": []}]}, (400, "unsupported_content", "messages")),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///"}}]}
                ]
            },
            (400, "unsupported_content", "messages"),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            (400, "unsupported_content", "messages"),
        ),
        ({"messages": [{"content": "hi"}]}, (400, "unsupported_role", "messages")),
        ({"messages": [{"role": ["user"], "content": "hi"}]}, (400, "unsupported_role", "messages")),
        ({"messages": [{"role": "tool", "content": "hi"}]}, (400, "unsupported_role", "messages")),
        (
            {"messages": [{"role": "user", "content": "hi", "name": "n"}]},
            (400, "unsupported_parameter", "messages"),
        ),
        ({"messages": [{"role": "user", "content": "hi", CANARY: 1}]}, (400, "unknown_parameter", None)),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, (400, "messages_refused", "messages")),
        (
            {"messages": [{"role": "user", "content": "a " * 300}]},
            (400, "context_length_exceeded", "messages"),
        ),
        ({"temperature": 2.1}, (400, "invalid_value", "temperature")),
        ({"temperature": "0"}, (400, "invalid_value", "temperature")),
        ({"temperature": True}, (400, "invalid_value", "temperature")),
        ({"top_p": 0}, (400, "invalid_value", "top_p")),
        ({"top_p": 1.5}, (400, "invalid_value", "top_p")),
        ({"top_k": -1}, (400, "invalid_value", "top_k")),
        ({"top_k": 2**31}, (400, "invalid_value", "top_k")),
        ({"min_p": -0.1}, (400, "invalid_value", "min_p")),
        ({"seed": 2**63}, (400, "invalid_value", "seed")),
        ({"seed": 1.0}, (400, "invalid_value", "seed")),
        ({"n": 9}, (400, "invalid_value", "n")),
        ({"n": 5}, (400, "too_many_choices", "n")),
        ({"n": 0}, (400, "invalid_value", "n")),
        ({"n": True}, (400, "invalid_value", "n")),
        ({"max_tokens": 0}, (400, "invalid_value", "max_tokens")),
        ({"max_tokens": -1}, (400, "invalid_value", "max_tokens")),
        ({"max_tokens": 65}, (400, "max_tokens_too_large", "max_tokens")),
        ({"max_completion_tokens": 2**63}, (400, "invalid_value", "max_completion_tokens")),
        ({"max_tokens": 1, "max_completion_tokens": 2}, (400, "invalid_value", "max_tokens")),
        ({"stop": 1}, (400, "invalid_value", "stop")),
        ({"stop": ""}, (400, "invalid_value", "stop")),
        ({"stop": ["a"] * 5}, (400, "invalid_value", "stop")),
        ({"stop": ["a", None]}, (400, "invalid_value", "stop")),
        ({"stop": "x" * 257}, (400, "invalid_value", "stop")),
        ({"stream": "yes"}, (400, "invalid_value", "stream")),
        ({"stream_options": {"include_usage": True}}, (400, "invalid_value", "stream_options")),
        ({"stream": True, "stream_options": {"include_usage": 1}}, (400, "invalid_value", "stream_options")),
        ({"stream": True, "stream_options": {CANARY: True}}, (400, "unknown_parameter", None)),
        ({"tools": [{"type": "function"}]}, (400, "unsupported_parameter", "tools")),
        ({"tool_choice": "required"}, (400, "invalid_value", "tool_choice")),
        ({"response_format": "json"}, (400, "invalid_value", "response_format")),
        ({"response_format": {"type": "grammar"}}, (400, "invalid_value", "response_format")),
        ({"response_format": {"type": "json_object", CANARY: 1}}, (400, "invalid_value", "response_format")),
        ({"response_format": {"type": "json_schema"}}, (400, "invalid_value", "response_format")),
        (held_to(None) | {"strict": True}, (400, "unknown_parameter", None)),
        (held_to({}, name="a b"), (400, "invalid_value", "response_format")),
        (held_to({}, strict="yes"), (400, "invalid_value", "response_format")),
        (held_to({}, **{CANARY: 1}), (400, "invalid_value", "response_format")),
        (held_to({"pattern": CANARY}), (400, "schema_refused", "response_format")),
        (held_to({"enum": [CANARY * 2000]}), (400, "schema_refused", "response_format")),
        ({"logprobs": 5}, (400, "invalid_value", "logprobs")),
        ({"top_logprobs": 2}, (400, "logprobs_required", "top_logprobs")),
        ({"logprobs": False, "top_logprobs": 2}, (400, "logprobs_required", "top_logprobs")),
        ({"logprobs": True, "top_logprobs": 21}, (400, "invalid_value", "top_logprobs")),
        ({"logprobs": True, "top_logprobs": "2"}, (400, "invalid_value", "top_logprobs")),
        ({"logit_bias": [5]}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"1": "5"}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"1": True}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"1": 100.5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {CANARY: 5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"-1": 5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"01": 5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"1\n": 5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"\u0661": 5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {"1000": 5}}, (400, "unknown_token", "logit_bias")),
        ({"logit_bias": {"9" * 5000: 5}}, (400, "invalid_value", "logit_bias")),
        ({"logit_bias": {str(token): 1 for token in range(301)}}, (400, "invalid_value", "logit_bias")),
        ({"frequency_penalty": 2.1}, (400, "invalid_value", "frequency_penalty")),
        ({"presence_penalty": -2.1}, (400, "invalid_value", "presence_penalty")),
        ({"presence_penalty": "0"}, (400, "invalid_value", "presence_penalty")),
        ({"repeat_penalty": 1.1}, (400, "unknown_parameter", None)),
        ({"user": 1}, (400, "invalid_value", "user")),
        ({"store": True}, (400, "unsupported_parameter", "store")),
        ({"best_of": 2}, (400, "unknown_parameter", None)),
        ({CANARY: 1}, (400, "unknown_parameter", None)),
    ],
)
def test_chat_fields(
    shared_cell: RunningCell, changes: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    with shared_cell.client() as client:
        assert error(client.post(CHAT, json=ask() | changes)) == expected
    assert shared_cell.notary.opened == {}
    assert shared_cell.engine.decoded == 0


TEXT = "/v1/completions"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "gpt-5"}, (404, "model_not_found", "model")),
        ({"prompt": None}, (400, "missing_parameter", "prompt")),
        ({"prompt": 1}, (400, "invalid_value", "prompt")),
        ({"prompt": []}, (400, "invalid_value", "prompt")),
        ({"prompt": ["a", "b"]}, (400, "several_prompts", "prompt")),
        ({"prompt": [[1], [2]]}, (400, "several_prompts", "prompt")),
        ({"prompt": [1, "a"]}, (400, "invalid_value", "prompt")),
        ({"prompt": [1, True]}, (400, "invalid_value", "prompt")),
        ({"prompt": [1, 1.0]}, (400, "invalid_value", "prompt")),
        ({"prompt": [1, -1]}, (400, "unknown_token", "prompt")),
        ({"prompt": [1, 1000]}, (400, "unknown_token", "prompt")),
        ({"prompt": [1, 10**30]}, (400, "unknown_token", "prompt")),
        ({"prompt": "a " * 256}, (400, "context_length_exceeded", "prompt")),
        ({"prompt": "a " * 2000}, (400, "context_length_exceeded", "prompt")),
        ({"prompt": [1] * 256}, (400, "context_length_exceeded", "prompt")),
        ({"prompt": "a " * 200, "max_tokens": 60}, (400, "context_length_exceeded", "prompt")),
        ({"max_tokens": 65}, (400, "max_tokens_too_large", "max_tokens")),
        ({"logprobs": True}, (400, "invalid_value", "logprobs")),
        ({"logprobs": 6}, (400, "invalid_value", "logprobs")),
        ({"echo": True}, (400, "unsupported_parameter", "echo")),
        ({"suffix": "end"}, (400, "unsupported_parameter", "suffix")),
        ({"best_of": 2}, (400, "unsupported_parameter", "best_of")),
        ({"n": 5}, (400, "too_many_choices", "n")),
        ({"messages": MESSAGES}, (400, "unknown_parameter", None)),
        ({"top_logprobs": 1}, (400, "unknown_parameter", None)),
        ({"max_completion_tokens": 3}, (400, "unknown_parameter", None)),
        ({"tools": []}, (400, "unknown_parameter", None)),
        ({CANARY: 1}, (400, "unknown_parameter", None)),
    ],
)
def test_text_fields(
    shared_cell: RunningCell, changes: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    with shared_cell.client() as client:
        assert error(client.post(TEXT, json={"model": "tiny", "prompt": "once"} | changes)) == expected
    assert shared_cell.notary.opened == {}
    assert shared_cell.engine.decoded == 0


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/tokenize", {}, (400, "missing_parameter", "content")),
        ("/tokenize", {"content": 1}, (400, "invalid_value", "content")),
        ("/tokenize", {"content": ["a"]}, (400, "invalid_value", "content")),
        ("/tokenize", {"content": "a", "add_special": 1}, (400, "invalid_value", "add_special")),
        ("/tokenize", {"content": "a", "parse_special": True}, (400, "unknown_parameter", None)),
        ("/tokenize", {"content": "a " * 257}, (400, "context_length_exceeded", "content")),
        ("/tokenize", {"content": "a " * 2000}, (400, "context_length_exceeded", "content")),
        ("/tokenize", {"content": "a" * 70_000}, (413, "body_too_large", None)),
        ("/detokenize", {}, (400, "missing_parameter", "tokens")),
        ("/detokenize", {"tokens": "1"}, (400, "invalid_value", "tokens")),
        ("/detokenize", {"tokens": [1, "2"]}, (400, "invalid_value", "tokens")),
        ("/detokenize", {"tokens": [1, True]}, (400, "invalid_value", "tokens")),
        ("/detokenize", {"tokens": [-1]}, (400, "unknown_token", "tokens")),
        ("/detokenize", {"tokens": [1000]}, (400, "unknown_token", "tokens")),
        ("/detokenize", {"tokens": [1] * 257}, (400, "context_length_exceeded", "tokens")),
        ("/detokenize", {"tokens": [1], CANARY: 1}, (400, "unknown_parameter", None)),
    ],
)
def test_token_fields(
    shared_cell: RunningCell, path: str, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    with shared_cell.client() as client:
        assert error(client.post(path, json=body)) == expected


def test_fields_that_ask_for_nothing_are_no_reason_to_refuse(cell: RunningCell) -> None:
    harmless = {
        "tools": None,
        "logprobs": False,
        "response_format": {"type": "text"},
        "top_logprobs": 0,
        "presence_penalty": 0,
        "logit_bias": {},
        "store": False,
        "stop": None,
        "safety_identifier": "x",
        "prompt_cache_key": "x",
    }
    text = {"model": "tiny", "prompt": "once", "best_of": 1, "echo": False, "suffix": "", "logprobs": None}
    with cell.client() as client:
        assert client.post(CHAT, json=ask(**harmless)).status_code == 200
        assert client.post(TEXT, json=text).status_code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"ttl_s": 0}, (400, "invalid_value", "ttl_s")),
        ({"ttl_s": 14_401}, (400, "invalid_value", "ttl_s")),
        ({"ttl_s": "60"}, (400, "invalid_value", "ttl_s")),
        ({"ttl_s": True}, (400, "invalid_value", "ttl_s")),
        ({CANARY: 60}, (400, "unknown_parameter", None)),
    ],
)
def test_session_fields(
    shared_cell: RunningCell, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    with shared_cell.client() as client:
        assert error(client.post("/v1/sessions", json=body)) == expected
    assert shared_cell.notary.opened == {}


def _canary_requests() -> Iterator[tuple[str, str, dict[str, str], bytes]]:
    """Put the canary where a request has room for it, one place at a time, each time refused or failing."""
    fields = [*ask(), "stream_options", "temperature", "stop", "tools", "seed", "n", "logit_bias", CANARY]
    for field in fields:
        for value in (CANARY, [CANARY], {CANARY: CANARY}):
            yield "POST", CHAT, JSON, json.dumps(ask() | {"store": True, field: value}).encode()
    for field in ("model", "prompt", "suffix", "logit_bias", "stop", CANARY):
        for value in (CANARY, [CANARY], {CANARY: CANARY}):
            body = {"model": "tiny", "prompt": CANARY, "echo": True} | {field: value}
            yield "POST", TEXT, JSON, json.dumps(body).encode()
    for path, field in (("/tokenize", "content"), ("/detokenize", "tokens")):
        for value in ([CANARY], {CANARY: CANARY}, CANARY + " x" * 2000):
            yield "POST", path, JSON, json.dumps({field: value}).encode()
    for field in ("role", "content", CANARY):
        messages = [{"role": "user", "content": CANARY} | {field: {CANARY: CANARY}}]
        yield "POST", CHAT, JSON, json.dumps(ask(messages=messages)).encode()
    yield "POST", CHAT, JSON, json.dumps(ask(CANARY + " x" * 300)).encode()
    yield "POST", CHAT, JSON, f'{{"{CANARY}'.encode()
    yield "POST", CHAT, JSON, CANARY.encode() + b"\xff"
    yield "POST", CHAT, {"Content-Type": CANARY}, CANARY.encode()
    yield "POST", CHAT, JSON | {"Content-Encoding": CANARY}, CANARY.encode()
    yield "POST", CHAT, JSON | {"X-Session-Id": CANARY}, json.dumps(ask(CANARY)).encode()
    yield "POST", "/v1/sessions", JSON, json.dumps({"ttl_s": CANARY, CANARY: CANARY}).encode()
    yield "GET", f"/{CANARY}?{CANARY}={CANARY}", {}, b""
    yield "GET", f"/v1/models/{CANARY}", {}, b""
    yield "DELETE", f"/v1/sessions/{CANARY}", {}, b""
    yield "GET", f"/v1/receipts/{CANARY}", {}, b""
    yield "GET", f"/v1/receipts/{CANARY}/proof", {}, b""
    yield CANARY.upper(), CHAT, {}, b""
    yield "GET", "/v1/models", {"Authorization": CANARY}, b""
    yield "GET", "/v1/models", {"X-Peer-Address": CANARY}, b""


def test_no_refusal_header_log_or_word_to_the_notary_repeats_what_was_sent(
    cell: RunningCell,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    for client_side in ("httpx", "httpcore"):  # the test's own HTTP client names its URLs
        monkeypatch.setattr(logging.getLogger(client_side), "propagate", False)
    with cell.client() as client:
        for method, path, headers, body in _canary_requests():
            response = client.request(method, path, headers=headers, content=body)
            assert response.status_code >= 400, (method, path, body)
            error(response)
            assert CANARY not in response.text.lower()
            assert CANARY not in str(response.headers).lower()
    assert not any(CANARY in record.getMessage() for record in caplog.records)
    assert CANARY not in "".join(capfd.readouterr())
    assert not any(CANARY.encode() in line for line in cell.notary.lines)


def test_no_request_line_is_logged_however_logging_is_set_up(
    cell: RunningCell, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with cell.client() as client:
        client.get("/v1/models")  # uvicorn has set logging up by now
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    with cell.client() as client:
        assert client.get(f"/{CANARY}").status_code == 404
    assert not [record for record in caplog.records if record.name == "uvicorn.access"]


def test_the_canary_would_be_seen_if_it_were_repeated(
    cell: RunningCell, caplog: pytest.LogCaptureFixture
) -> None:
    cell.engine.answer = CANARY
    with cell.client() as client:
        assert CANARY in client.post(CHAT, json=ask()).text
    logging.getLogger("uvicorn.error").error(CANARY)
    assert CANARY in caplog.text


def test_a_fault_of_ours_is_answered_without_its_words(
    cell: RunningCell,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fault(*_args: object, **_options: object) -> None:
        raise ValueError(f"invalid literal: {CANARY}")

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(cell.engine, "prompt_tokens", fault)
    with cell.client() as client:
        assert error(client.post(CHAT, json=ask(CANARY))) == (500, "internal", None)
    monkeypatch.setattr(cell.engine, "generate", fault)
    monkeypatch.setattr(cell.engine, "prompt_tokens", lambda *_args: [1, 2, 3])
    with cell.client() as client:
        assert error(client.post(CHAT, json=ask(CANARY))) == (500, "internal", None)
        assert error(client.post(CHAT, json=ask(CANARY, stream=True))) == (500, "internal", None)
    assert cell.notary.await_ends(2) == ["failed", "failed"]
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_strict_json_reads_what_json_writes(value: object) -> None:
    assert strict_json.parse(bytearray(json.dumps(value, ensure_ascii=False).encode())) == value
    assert strict_json.parse(bytearray(json.dumps(value).encode())) == value


@given(st.binary(max_size=200))
def test_strict_json_raises_nothing_but_its_refusal(data: bytes) -> None:
    refusal = None
    try:
        strict_json.parse(bytearray(data))
    except Refusal as raised:
        refusal = raised
    if refusal is not None:
        # No parser's exception hangs on to it: that would hold the whole text.
        assert (refusal.code, refusal.__cause__, refusal.__context__) == ("invalid_json", None, None)


@pytest.mark.parametrize(("depth", "accepted"), [(32, True), (33, False)])
@pytest.mark.parametrize("core", [b"", b"1", b'"a"'])
def test_nesting_is_accepted_to_thirty_two_deep(depth: int, *, accepted: bool, core: bytes) -> None:
    data = bytearray(b"[" * depth + core + b"]" * depth)
    if accepted:
        strict_json.parse(data)
    else:
        with pytest.raises(Refusal):
            strict_json.parse(data)

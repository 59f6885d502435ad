"""The protocol from control's side, against a peer that breaks it in every way."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import ApplianceError, RefusedError, UnavailableError
from provisioning.conversation import Conversation


class Canned:
    """A channel that answers with given bytes."""

    def __init__(self, answer: Callable[[dict[str, object]], bytes]) -> None:
        self._answer = answer
        self._line = b""
        self.closed = False

    def send(self, data: bytes, timeout_s: float) -> None:
        if not self._line:
            self._line = self._answer(json.loads(data))

    def receive_line(self, limit: int, timeout_s: float) -> bytes:
        line, self._line = self._line, b""
        return line

    def close(self) -> None:
        self.closed = True


def ask(answer: Callable[[dict[str, object]], bytes]) -> tuple[object, Canned]:
    channel = Canned(answer)
    try:
        return Conversation(channel).ask("state", {}, 1.0), channel
    except ApplianceError as error:
        return error, channel


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b'{"id":2,"ok":true,"result":{}}',
        b'{"id":"1","ok":true,"result":{}}',
        b'{"id":1,"ok":true}',
        b'{"id":1,"ok":true,"result":[]}',
        b'{"id":1,"ok":1,"result":{}}',
        b'{"id":1,"ok":false}',
        b'{"id":1,"ok":false,"error":"no"}',
        b'{"id":1,"ok":false,"error":{"code":7}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_broken_answer_is_unavailable_and_ends_the_conversation(line: bytes) -> None:
    result, channel = ask(lambda _: line)
    assert isinstance(result, UnavailableError)
    assert channel.closed


@given(line=st.binary(max_size=200).filter(lambda b: b"\n" not in b))
def test_no_answer_raises_anything_but_our_errors(line: bytes) -> None:
    result, _ = ask(lambda _: line)
    assert isinstance(result, (ApplianceError, dict))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("refused", "refused"),
        ("bundle_refused", "bundle_refused"),
        ("pin_mismatch", "pin_mismatch"),
        ("usage", "refused"),
        ("host", "unavailable"),
        ("anything", "unavailable"),
    ],
)
def test_a_code_becomes_the_error_of_that_class(code: str, expected: str) -> None:
    error = {"code": code, "message": "m", "field": "f"}
    result, channel = ask(lambda _: json.dumps({"id": 1, "ok": False, "error": error}).encode())
    assert isinstance(result, ApplianceError)
    assert result.code == expected
    assert not channel.closed
    if expected == "bundle_refused":
        assert isinstance(result, RefusedError)
        assert result.field == "f"


def test_the_request_has_an_id_that_grows() -> None:
    seen = []

    def answer(request: dict[str, object]) -> bytes:
        seen.append(request)
        return json.dumps({"id": request["id"], "ok": True, "result": {}}).encode()

    conversation = Conversation(Canned(answer))
    conversation.ask("state", {}, 1.0)
    conversation.ask("receipts", {"after": 3, "limit": 5}, 1.0)
    assert seen == [{"id": 1, "op": "state"}, {"id": 2, "op": "receipts", "after": 3, "limit": 5}]

"""The load: chat requests over a Unix socket or TCP, with the moment at which each piece of the answer came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from appliance.bench.serve.http import BadResponseError, Response, render_request
from appliance.core.errors import UnavailableError

Message = dict[str, str]
_PATIENCE_S: Final = 600.0  # for one answer; the slowest case waits in a queue behind long prompts


class BenchPeerError(UnavailableError):
    """A server under measurement refused or broke off."""

    code = "bench_peer"


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and what it wants to see in every request.

    Attributes:
        socket: Path of a Unix socket, or a (host, port) of TCP.
        headers: Sent with each request.
        fields: Put into each chat request.
        sessions: It keeps sessions (`POST /v1/sessions`).
    """

    socket: str | tuple[str, int]
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    sessions: bool = False


@dataclass(frozen=True)
class Answer:
    """One answer. All times are in seconds on one monotonic clock.

    Attributes:
        sent_at: When the request went out.
        times: When each piece with text came.
        ended_at: When the answer was complete.
        text: The whole text.
        prompt_tokens: Of the prompt, as the server counted them.
        tokens: Of the answer, as the server counted them.
    """

    sent_at: float
    times: tuple[float, ...]
    ended_at: float
    text: str
    prompt_tokens: int
    tokens: int


class Pieces(Protocol):
    """What is told of pieces while they come."""

    def __call__(self, count: int, /) -> None: ...


async def exchange(
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    watch: Pieces | None = None,
) -> Response:
    """Send a request on a connection of its own and return the whole response.

    Args:
        watch: Told how many events have come, each time that some have.

    Raises:
        BenchPeerError: If the server does not answer with a success.
        OSError: If it does not listen.
    """
    loop = asyncio.get_running_loop()
    data = json.dumps(body).encode("ascii") if body is not None else b""
    request = render_request(method, path, {**endpoint.headers, **(headers or {})}, data)
    make = lambda: _Exchange(request, loop.create_future(), watch)  # noqa: E731 - a factory, used twice below
    if isinstance(endpoint.socket, str):
        transport, protocol = await loop.create_unix_connection(make, endpoint.socket)
    else:
        transport, protocol = await loop.create_connection(make, *endpoint.socket)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            response = await protocol.done
    except (BadResponseError, TimeoutError) as error:
        raise BenchPeerError("a server broke off") from error
    finally:
        transport.abort()
    if response.status // 100 != 2:
        raise BenchPeerError(f"a server answered {path} with status {response.status}")
    return response


async def ask(
    endpoint: Endpoint,
    messages: list[Message],
    max_tokens: int,
    *,
    session: str | None = None,
    stream: bool = True,
    watch: Pieces | None = None,
) -> Answer:
    """Ask for one chat answer at temperature 0.

    Args:
        session: Id of a kept session.
        stream: As server-sent events; otherwise all text counts as coming at the end.
        watch: As in `exchange`.

    Raises:
        BenchPeerError: If there is no complete answer.
    """
    body = {
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": stream,
        **endpoint.fields,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"X-Session-Id": session} if session else {}
    sent_at = time.perf_counter()
    response = await exchange(
        endpoint, "POST", "/v1/chat/completions", body=body, headers=headers, watch=watch
    )
    ended_at = time.perf_counter()
    return (_read_stream if stream else _read_whole)(response, sent_at, ended_at)


async def open_session(endpoint: Endpoint) -> str | None:
    """Open a kept session; None where a server knows none."""
    if not endpoint.sessions:
        return None
    response = await exchange(endpoint, "POST", "/v1/sessions")
    return str(json.loads(response.body)["id"])


async def close_session(endpoint: Endpoint, session: str | None) -> None:
    """End a kept session."""
    if session is not None:
        await exchange(endpoint, "DELETE", f"/v1/sessions/{session}")


class _Exchange(asyncio.Protocol):
    def __init__(self, request: bytes, done: asyncio.Future[Response], watch: Pieces | None) -> None:
        self.done = done
        self._request = request
        self._watch = watch
        self._response = Response()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._response.feed(data, time.perf_counter())
        except BadResponseError as error:
            self._settle(error)
            return
        if self._watch is not None:
            self._watch(len(self._response.events))
        if self._response.complete:
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio
        try:
            self._response.end()
        except BadResponseError as error:
            self._settle(error)
        else:
            self._settle(None)

    def _settle(self, error: BadResponseError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self._response)
        else:
            self.done.set_exception(error)


def _read_stream(response: Response, sent_at: float, ended_at: float) -> Answer:
    times: list[float] = []
    texts: list[str] = []
    usage: dict[str, int] | None = None
    for at, data in response.events:
        if data == b"[DONE]":
            break
        chunk = json.loads(data)
        if "error" in chunk:
            raise BenchPeerError("a server broke off an answer")
        usage = chunk.get("usage") or usage
        text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        if text:
            times.append(at)
            texts.append(text)
    return _answer(sent_at, tuple(times), ended_at, "".join(texts), usage)


def _read_whole(response: Response, sent_at: float, ended_at: float) -> Answer:
    body = json.loads(response.body)
    text = body["choices"][0]["message"]["content"] or ""
    return _answer(sent_at, (ended_at,), ended_at, text, body.get("usage"))


def _answer(
    sent_at: float, times: tuple[float, ...], ended_at: float, text: str, usage: Mapping[str, int] | None
) -> Answer:
    if usage is None or not times:
        raise BenchPeerError("a server sent no tokens or did not count them")
    return Answer(sent_at, times, ended_at, text, usage["prompt_tokens"], usage["completion_tokens"])

"""Answering a prompt, whole or as a stream, in the order that receipts need.

The notary's `open` record is durable before the first byte of the first answer, the receipt before the last byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.core.budget import Asks
from appliance.core.names import random_id
from inference.cell.admission import single_header
from inference.cell.body import read_object
from inference.cell.cell import Cell
from inference.cell.completion import (
    DONE,
    Choice,
    Chunks,
    Form,
    Heading,
    render_error_event,
    render_receipt_comment,
    render_whole,
)
from inference.cell.errors import Refusal
from inference.cell.generation import Bounds, Generation
from inference.cell.prompt import Prompt
from inference.cell.sessions import Session
from inference.cell.tools import Call, CallReader, Tools
from inference.cell.turn import Turn
from inference.cell.work import Work

if TYPE_CHECKING:
    from inference.engine.engine import Piece

_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


async def read_content(cell: Cell, request: Request) -> tuple[dict[str, Any], Bounds]:
    """Read a body that holds content of the client; return it with what bounds it.

    Raises:
        Refusal: As `read_object`, and `rate_limit_requests`.
    """
    work: Work = request.state.work
    work.has_content = True
    cell.rates.take_request()
    policy = cell.policy.current
    body = await read_object(request, max_bytes=policy.limits.body_bytes)
    bounds = Bounds(
        policy.limits,
        cell.names,
        cell.engine.vocabulary_size,
        cell.engine.streams,
        cell.model.tool_calls,
    )
    return body, bounds


async def answer_prompt(
    cell: Cell,
    request: Request,
    generation: Generation,
    prompt: Prompt,
    form: Form,
    *,
    prompt_field: str,
    tools: Tools | None = None,
) -> Response:
    """Answer a prompt that was understood and tokenised: what was refused until here opened no session.

    Args:
        cell: The cell.
        request: Its body must have been read to its end.
        generation: How to answer.
        prompt: What is answered.
        form: How to spell the answer.
        prompt_field: Name of the field that the prompt came in.
        tools: That may be called.

    Raises:
        Refusal: As its parts say.
    """
    work: Work = request.state.work
    tokens = len(prompt.tokens)
    context_tokens = min(
        cell.engine.context_tokens, cell.policy.current.limits.context_tokens or cell.engine.context_tokens
    )
    samplings = generation.fit(tokens, context_tokens, prompt_field, rate_tokens=cell.rates.tokens)
    needed = tokens + sum(sampling.max_tokens for sampling in samplings)
    cell.rates.reserve(needed)
    work.reserved = needed
    work.watch_disconnect(request.receive)
    least = tokens + generation.choices
    session = await _session(cell, request, work, choices=generation.choices, needed=needed, least=least)
    samplings = session.clip(samplings, tokens)
    turn = Turn(cell, session, work, prompt, samplings)
    heading = Heading(form.id_prefix + random_id(), int(time.time()), cell.model)
    if generation.stream:
        chunks = Chunks(form, heading, choices=generation.choices, include_usage=generation.include_usage)
        readers = None if tools is None else [tools.reader() for _ in range(generation.choices)]
        return EventStream(turn, chunks, include_usage=generation.include_usage, readers=readers)
    return await _answer_whole(turn, form, heading, generation, tools)


async def _session(
    cell: Cell, request: Request, work: Work, *, choices: int, needed: int, least: int
) -> Session:
    headers = request.scope["headers"]
    if any(name == b"x-session-id" for name, _ in headers):
        if choices > 1:
            raise Refusal("choices_in_session", "n")
        session_id = single_header(headers, b"x-session-id") or b""
        return cell.sessions.find(session_id.decode("ascii", "replace"))
    asks = Asks(requests=1, tokens=needed, least_tokens=least)
    return await cell.sessions.open(work, kept=False, streams=choices, asks=asks)


async def _answer_whole(
    turn: Turn, form: Form, heading: Heading, generation: Generation, tools: Tools | None
) -> Response:
    asked = generation.sampling.logprobs is not None
    choices = [Choice([], [] if asked else None) for _ in range(generation.choices)]

    async def emit(index: int, piece: Piece) -> None:
        choice = choices[index]
        choice.texts.append(piece.text)
        if choice.logprobs is not None:
            choice.logprobs += piece.logprobs

    for choice, finish in zip(choices, await turn.decode(emit), strict=True):
        choice.finish = finish
        if tools is not None:
            reader = tools.reader()
            reader.feed(choice.text)
            choice.calls = reader.finish()[1]
            choice.finish = _finish(finish, choice.calls)
    signed = await turn.conclude()
    body = render_whole(form, heading, choices, turn.usage, signed)
    headers = {"x-receipt-id": turn.session.receipt, "cache-control": "no-store"}
    return Response(body, media_type="application/json", headers=headers)


class EventStream(Response):
    """A streamed answer, written as it is decoded.

    The header goes out with the first piece: until then a refusal can still be a status code.
    """

    def __init__(
        self, turn: Turn, chunks: Chunks, *, include_usage: bool, readers: Sequence[CallReader] | None
    ) -> None:
        super().__init__()
        self._readers = readers  # of calls of tools, one for each choice
        self._turn = turn
        self._chunks = chunks
        self._include_usage = include_usage
        self._sending = asyncio.Lock()  # several choices come side by side
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Decode and send. Ends without the last byte if the device was cut off or no receipt could be had."""
        try:
            finishes = await self._turn.decode(lambda index, piece: self._send_piece(send, index, piece))
        except Refusal as refusal:
            await self._break_off(send, refusal)
            return
        await self._start(send)
        last = self._rest(finishes) + self._chunks.ending(finishes)
        if self._include_usage:
            last += self._chunks.usage(self._turn.usage)
        await _send_body(send, last, more=True)
        try:
            signed = await self._turn.conclude()
        except Refusal:
            return
        await _send_body(send, (render_receipt_comment(signed) if signed else b"") + DONE, more=False)

    def _rest(self, finishes: list[str]) -> bytes:
        """Return the chunks of what was held back, and say in `finishes` which choices are calls."""
        data = b""
        for index, reader in enumerate(self._readers or ()):
            text, calls = reader.finish()
            if text:
                data += self._chunks.piece(index, text, ())
            if calls:
                data += self._chunks.calls(index, calls)
            finishes[index] = _finish(finishes[index], calls)
        return data

    async def _send_piece(self, send: Send, index: int, piece: Piece) -> None:
        text = piece.text if self._readers is None else self._readers[index].feed(piece.text)
        if not text and not piece.logprobs:
            return
        async with self._sending:
            await self._start(send)
            await _send_body(send, self._chunks.piece(index, text, piece.logprobs), more=True)

    async def _start(self, send: Send) -> None:
        if self._started:
            return
        self._started = True
        headers = [*_EVENT_STREAM, (b"x-receipt-id", self._turn.session.receipt.encode("ascii"))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if opening := self._chunks.opening():
            await _send_body(send, opening, more=True)

    async def _break_off(self, send: Send, refusal: Refusal) -> None:
        if not self._started:
            raise refusal
        if refusal.code == "invalid_api_key":
            return  # cut off: not a byte more
        signed = await self._turn.ended()
        receipt = render_receipt_comment(signed) if signed else b""
        await _send_body(send, render_error_event(refusal.code) + receipt + DONE, more=False)


def _finish(reason: str, calls: Sequence[Call]) -> str:
    """Return why an answer ended, for its reader: one that was cut off behind its calls has calls and was cut off."""
    return "tool_calls" if calls and reason == "stop" else reason


async def _send_body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})

"""POST /v1/chat/completions: whole answers and streams, each with the order that receipts need.

The notary's `open` record is durable before the first byte of the first answer, the receipt before the last byte.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.core.names import random_id
from inference.cell.admission import single_header
from inference.cell.body import read_object
from inference.cell.cell import Cell
from inference.cell.chat_request import ChatRequest, parse_chat
from inference.cell.completion import (
    DONE,
    Chunks,
    Heading,
    render_completion,
    render_error_event,
    render_receipt_comment,
)
from inference.cell.errors import Refusal
from inference.cell.sessions import Session
from inference.cell.turn import Turn, tokenise
from inference.cell.work import Work

_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


async def answer_chat(cell: Cell, request: Request) -> Response:
    """Answer one chat request.

    1. read, parse and tokenise: what is refused here opens no session; 2. find or open the session; 3. decode.

    Raises:
        Refusal: As its parts say.
    """
    work: Work = request.state.work
    chat = await _read(cell, request, work)
    prompt = await tokenise(cell.engine, chat.messages)
    sampling = chat.fit(len(prompt), cell.engine.context_tokens)
    work.watch_disconnect(request.receive)
    turn = Turn(cell, await _session(cell, request, work), work, prompt, sampling)
    if chat.stream:
        return EventStream(cell, turn, include_usage=chat.include_usage)
    return await _answer_whole(cell, turn)


async def _read(cell: Cell, request: Request, work: Work) -> ChatRequest:
    limits = cell.policy.current.limits
    work.has_content = True
    body = await read_object(request, max_bytes=limits.body_bytes)
    return parse_chat(body, model=cell.model.name, limits=limits)


async def _session(cell: Cell, request: Request, work: Work) -> Session:
    headers = request.scope["headers"]
    if any(name == b"x-session-id" for name, _ in headers):
        session_id = single_header(headers, b"x-session-id") or b""
        return cell.sessions.find(session_id.decode("ascii", "replace"))
    return await cell.sessions.open(work, kept=False)


async def _answer_whole(cell: Cell, turn: Turn) -> Response:
    texts: list[str] = []

    async def emit(text: str) -> None:
        texts.append(text)

    finish = await turn.decode(emit)
    signed = await turn.conclude()
    body = render_completion(_heading(cell), "".join(texts), finish, turn.usage, signed)
    headers = {"x-receipt-id": turn.session.receipt, "cache-control": "no-store"}
    return Response(body, media_type="application/json", headers=headers)


class EventStream(Response):
    """A streamed answer, written as it is decoded.

    The header goes out with the first piece: until then a refusal can still be a status code.
    """

    def __init__(self, cell: Cell, turn: Turn, *, include_usage: bool) -> None:
        super().__init__()
        self._turn = turn
        self._include_usage = include_usage
        self._chunks = Chunks(_heading(cell), include_usage=include_usage)
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Decode and send. Ends without the last byte if the device was cut off or no receipt could be had."""
        try:
            finish = await self._turn.decode(lambda text: self._send_text(send, text))
        except Refusal as refusal:
            await self._break_off(send, refusal)
            return
        await self._start(send)
        last = self._chunks.finish(finish)
        if self._include_usage:
            last += self._chunks.usage(self._turn.usage)
        await _send_body(send, last, more=True)
        try:
            signed = await self._turn.conclude()
        except Refusal:
            return
        await _send_body(send, (render_receipt_comment(signed) if signed else b"") + DONE, more=False)

    async def _send_text(self, send: Send, text: str) -> None:
        await self._start(send)
        await _send_body(send, self._chunks.text(text), more=True)

    async def _start(self, send: Send) -> None:
        if self._started:
            return
        self._started = True
        headers = [*_EVENT_STREAM, (b"x-receipt-id", self._turn.session.receipt.encode("ascii"))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_body(send, self._chunks.role(), more=True)

    async def _break_off(self, send: Send, refusal: Refusal) -> None:
        if not self._started:
            raise refusal
        if refusal.code == "invalid_api_key":
            return  # cut off: not a byte more
        signed = await self._turn.ended()
        receipt = render_receipt_comment(signed) if signed else b""
        await _send_body(send, render_error_event(refusal.code) + receipt + DONE, more=False)


async def _send_body(send: Send, data: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def _heading(cell: Cell) -> Heading:
    return Heading("chatcmpl-" + random_id(), int(time.time()), cell.model)

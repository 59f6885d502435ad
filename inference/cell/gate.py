"""The outermost layer of the application: nobody gets past it unadmitted, no exception gets out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.core.policy import DeviceAccess
from appliance.core.receipt import End
from inference.cell.api import render_refusal
from inference.cell.cell import Cell
from inference.cell.errors import Refusal
from inference.cell.turn import stopped_code
from inference.cell.work import Work


class Gate:
    """ASGI application around the API.

    Every path, known or not, asks for a device's token first. What goes wrong inside is answered from the closed
    table; the server around this would log the exception with its values.
    """

    def __init__(self, cell: Cell, app: ASGIApp) -> None:
        self._cell = cell
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit, run, and answer whatever was left unanswered."""
        if scope["type"] != "http":
            return
        answer = _Answer(send)
        code: str | None
        try:
            code = await self._run(scope, receive, answer)
        except Refusal as refusal:
            code = refusal.code
        except Exception:  # noqa: BLE001 - the edge: nothing of an exception may reach an answer or a log
            code = "internal"
        if code is not None and not answer.started:
            await render_refusal(Refusal(code))(scope, receive, answer)

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer) -> str | None:
        """Run one request; return what to answer if it was stopped before it answered."""
        device = self._cell.admission.admit(scope["headers"])
        answer.told = partial(self._headers, device)
        if self._cell.life.draining:
            raise Refusal(stopped_code(self._cell, End.DRAINED))
        work = Work(device)
        scope.setdefault("state", {})["work"] = work
        self._cell.life.begin(work)
        try:
            await work.run(self._handle(scope, receive, answer))
        finally:
            self._cell.sessions.end_orphans(work)
            self._cell.life.finish(work)
            self._cell.rates.settle(work.reserved, work.used)
        if work.stopped in (None, End.DISCONNECTED):
            return None
        return stopped_code(self._cell, work.stopped)

    def _headers(self, device: DeviceAccess) -> Iterator[tuple[bytes, bytes]]:
        """Yield what every answer to a device says: its client's rates, and when its access ends."""
        yield from self._cell.rates.headers()
        ends = [end for end in (device.expires_at, self._cell.policy.current.expires_at) if end is not None]
        if ends:
            until = datetime.fromtimestamp(min(ends), UTC).isoformat().replace("+00:00", "Z")
            yield b"x-access-expires-at", until.encode("ascii")

    async def _handle(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        await self._app(scope, receive, answer)


class _Answer:
    """The way to the client, remembering whether the answer has begun; `told` are headers that are added when it does."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.told: Callable[[], Iterable[tuple[bytes, bytes]]] = tuple

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *self.told()]}
        self.started = True
        await self._send(message)

"""One running request: which device sent it, and how it is stopped from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from appliance.core.policy import DeviceAccess
from appliance.core.receipt import End


class Work:
    """One running request.

    Attributes:
        device: Who sent it.
        stopped: Why it was stopped, None while it was not.
        has_content: Its body was read, so text of the client is in this process's memory.
        in_line: It waits for a stream.
        reserved, used: Tokens that it took of the client's rate, and that it has used.
    """

    def __init__(self, device: DeviceAccess) -> None:
        self.device = device
        self.stopped: End | None = None
        self.has_content = False
        self.in_line = False
        self.reserved = 0
        self.used = 0
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._sealed = False

    async def run(self, handling: Coroutine[Any, Any, None]) -> None:
        """Run the request's handling to its end or until it is stopped.

        Raises:
            Whatever the handling raises, except that being stopped ends quietly.
        """
        self._task = asyncio.create_task(handling)
        if self.stopped is not None:
            self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            self._task.cancel()
            if self._watch is not None:
                self._watch.cancel()
        if not self._task.cancelled():
            self._task.result()

    def stop(self, reason: End) -> None:
        """Stop the request. The first reason counts, so the handling is cancelled at most once.

        A cancelled handling may therefore still await what it needs to end its session in order.
        """
        if self.stopped is not None or (self._sealed and reason is not End.REVOKED):
            return
        self.stopped = reason
        if self._task is not None:
            self._task.cancel()

    def seal(self) -> None:
        """The answer is complete but for its receipt: from here on only a revocation stops it."""
        self._sealed = True

    def watch_disconnect(self, receive: Receive) -> None:
        """Stop the request when its client goes away. The body must have been read to its end."""
        self._watch = asyncio.create_task(self._await_disconnect(receive))

    async def _await_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop(End.DISCONNECTED)

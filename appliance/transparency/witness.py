"""A witness: cosigns a log's head once it continues the last one it saw (c2sp.org/tlog-witness), so that nobody is shown another tree.

One resource, `POST /add-checkpoint`: the body is a `Continuation`, the answer a cosignature line. What was seen is durable before
anything is signed; a witness whose memory is lost must get a new key.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from appliance.transparency.checkpoint import Cosigner, Policy
from appliance.transparency.errors import (
    ConsistencyError,
    LogError,
    LogFormatError,
    LogSignatureError,
    OtherLogError,
)
from appliance.transparency.memory import Memory
from appliance.transparency.note import MOST_BYTES, Signature
from appliance.transparency.proof import Continuation

MOST_BODY_BYTES: Final = MOST_BYTES + 8 * 1024  # the note, and 63 hashes in base64
_STATUS: Final = (
    (OtherLogError, 404),
    (LogSignatureError, 403),
    (ConsistencyError, 422),
    (LogFormatError, 400),
)


class StaleError(ConsistencyError):
    """The request begins at another size than the one that was seen last.

    Attributes:
        seen: That size.
    """

    def __init__(self, seen: int) -> None:
        super().__init__("another size was seen last", field="old", hint=f"begin at {seen}")
        self.seen = seen


class Witness:
    """A witness of one log.

    Args:
        cosigner: Its name and key.
        memory: File with the last head.
        policy: The log's keys.
    """

    def __init__(self, cosigner: Cosigner, memory: Path, policy: Policy) -> None:
        self._cosigner = cosigner
        self._memory = Memory(memory, policy)

    def add_checkpoint(self, body: bytes) -> Signature:
        """Cosign a head that continues the last one.

        Raises:
            StaleError: If it begins at another size.
            LogError: If it does not verify or does not continue. Nothing is remembered then.
            HostError: If the memory cannot be read or written.
        """
        continuation = Continuation.parse(body)
        seen = self._memory.seen
        if continuation.old != seen.size:
            raise StaleError(seen.size)
        return self._cosigner.cosign(self._memory.advance(continuation), int(time.time()))


def build_app(witness: Witness) -> Starlette:
    """Return the HTTP service."""

    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BODY_BYTES:
                return PlainTextResponse("too large\n", 413)
        try:
            signature = await run_in_threadpool(witness.add_checkpoint, body)
        except StaleError as stale:
            return Response(f"{stale.seen}\n", 409, headers={"Content-Type": "text/x.tlog.size"})
        except LogError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
            return PlainTextResponse(f"{error.message}\n", status)
        return PlainTextResponse(f"{signature.render()}\n")

    return Starlette(routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"])])

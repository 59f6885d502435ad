"""JSON lines over a channel: one request, one reply (docs/spec/node-protocols.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from appliance.core.errors import BundleError, PinError, RefusedError, UnavailableError, UsageError
from provisioning.channel import Channel

MAX_LINE_BYTES = 64 * 2**20  # node-protocols.md, first paragraph
_REFUSALS = {cls.code: cls for cls in (BundleError, PinError, RefusedError)}


class Conversation:
    """One channel, spoken to by one thread at a time. After any failure it is closed and never used again."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last_id = 0

    def ask(
        self, op: str, fields: dict[str, Any], timeout_s: float, body: Iterator[bytes] | None = None
    ) -> dict[str, Any]:
        """Send a request and return the result.

        Args:
            op: The operation.
            fields: Its other fields.
            timeout_s: For the whole exchange, in seconds.
            body: Raw bytes that follow the request's line.

        Raises:
            RefusedError: Of the class that the node's code names, with its message and field.
            UnavailableError: If the node does not answer in time, or not in this protocol.
        """
        self._last_id += 1
        deadline = time.monotonic() + timeout_s
        line = json.dumps({"id": self._last_id, "op": op, **fields}, ensure_ascii=False).encode("utf-8")
        try:
            self._channel.send(line + b"\n", timeout_s)
            for chunk in body or ():
                self._channel.send(chunk, _left(deadline))
            reply = self._parse(self._channel.receive_line(MAX_LINE_BYTES, _left(deadline)))
        except UnavailableError:
            self.close()
            raise
        if reply.get("ok") is True and isinstance(reply.get("result"), dict):
            return dict(reply["result"])
        raise self._refusal(reply.get("error"))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnavailableError("the node answered with something that is not JSON") from error
        # A reply to another request means that the stream is out of step: nothing on it can be trusted now.
        if not isinstance(reply, dict) or reply.get("id") != self._last_id:
            raise UnavailableError("the node answered another request")
        return reply

    def _refusal(self, error: Any) -> Exception:
        if not isinstance(error, dict) or not isinstance(error.get("code"), str):
            self.close()
            return UnavailableError("the node answered neither a result nor an error")
        message = str(error.get("message", ""))[:500]
        field = error.get("field")
        if error["code"] == UsageError.code:
            return RefusedError(message, hint="control and node speak different versions of the protocol")
        refusal = _REFUSALS.get(error["code"])
        if refusal is None:
            return UnavailableError(f"the node failed: {error['code'][:32]}")
        return refusal(message, field=field if isinstance(field, str) else None)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise UnavailableError("the node did not answer in time")
    return left

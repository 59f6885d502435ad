"""The asking side of JSON lines over a Unix socket (docs/spec/node-protocols.md)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from appliance.core import errors
from appliance.core.errors import ApplianceError, RefusedError, UnavailableError

MAX_LINE_BYTES = 64 * 2**20


class RemoteError(ApplianceError):
    """The other side understood the request and answered with an error; carries its code, message and field."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message", "failed")), hint=error.get("hint"))
        self.code = str(error.get("code", "error"))
        self.field = error.get("field")
        self.retryable = self.code == errors.UnavailableError.code


def call(path: Path, op: str, *, timeout_s: float, **fields: Any) -> Any:
    """Send one request over a fresh connection and return its result.

    Args:
        path: The socket.
        op: The operation.
        timeout_s: How long to wait for each step, in seconds.
        fields: The request's other fields.

    Raises:
        UnavailableError: If nobody answers.
        RemoteError: If the answer is an error.
        RefusedError: If the answer is not what the protocol says.
    """
    request = json.dumps({"id": 1, "op": op, **fields}, separators=(",", ":")).encode("utf-8") + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                line = stream.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise UnavailableError(f"{path.name} does not answer", hint="is its service running?") from error
    if not line.endswith(b"\n"):
        raise UnavailableError(f"{path.name} hung up without an answer")
    return parse_reply(line)


def parse_reply(line: bytes) -> Any:
    """Return the result in a reply's line.

    Raises:
        RemoteError: If the reply is an error.
        RefusedError: If it is not a reply.
    """
    try:
        reply = json.loads(line)
        if reply["ok"] is True:
            return reply["result"]
        error = dict(reply["error"])
    except (ValueError, KeyError, TypeError) as problem:
        raise RefusedError("the answer is not what the protocol says") from problem
    raise RemoteError(error)

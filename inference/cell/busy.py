"""Answers of a cell that serves nothing: no seat was free, or the model cannot be served.

Standard library only and blocking, so that it costs nothing to start and can run before anything else is imported.
"""

from __future__ import annotations

import contextlib
import socket
import time

from inference.cell.errors import Refusal

_GREETING_BYTES = (
    16_384  # one look at the request, so that closing does not reset the connection under the answer
)
_PATIENCE_S = 0.2


def serve_busy(listener: socket.socket, *, seconds: float = 2.0) -> None:
    """Answer 503 `no_seat` to whoever connects within `seconds`, then return.

    Args:
        listener: The inherited listening socket; it stays open.
        seconds: How long to answer. A launcher starts the next cell at the next connection.
    """
    answer_waiting(listener, Refusal("no_seat"), seconds=seconds)


def answer_waiting(listener: socket.socket, refusal: Refusal, *, seconds: float) -> None:
    """Give everyone who connects within `seconds` the same refusal."""
    answer = _render(refusal)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(min(_PATIENCE_S, left))
            with contextlib.suppress(TimeoutError):
                connection.recv(_GREETING_BYTES)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)


def _render(refusal: Refusal) -> bytes:
    body = refusal.body()
    headers = refusal.headers() | {"content-length": str(len(body))}
    lines = [f"HTTP/1.1 {refusal.status} Unavailable", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body

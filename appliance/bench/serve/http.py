"""An HTTP/1.1 response as it arrives (RFC 9112), with the moment of each server-sent event. Pure.

On the way in nothing is decoded but framing: chunks are joined, lines are cut, and a `data:` line is kept with the
time at which its last byte came. JSON is read when the answer is over.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_MAX_HEAD_BYTES: Final = 65_536


class BadResponseError(Exception):
    """What came is not HTTP/1.1."""


class Event(NamedTuple):
    """The data of a server-sent event (WHATWG HTML, section 9.2), and when it was there, in seconds."""

    at: float
    data: bytes


class Response:
    """One response.

    Attributes:
        status: HTTP status, 0 before the head is there.
        complete: Nothing more belongs to it.
        events: The events so far; empty unless the response is an event stream.
        body: The body so far, empty if it is an event stream.
    """

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.events: list[Event] = []
        self.body = bytearray()
        self._raw = bytearray()  # not yet understood
        self._line = bytearray()  # of an event stream: the line that has not ended yet
        self._streamed = self._chunked = False
        self._left: int | None = None  # bytes of the body, or of the chunk, that are still to come
        self._ending = False  # after the last chunk

    def feed(self, data: bytes, at: float) -> None:
        """Take bytes that came at a moment.

        Raises:
            BadResponseError: If they are not HTTP/1.1.
        """
        self._raw += data
        if not self.status and not self._read_head():
            return
        if self._chunked:
            self._read_chunks(at)
            return
        self._take(len(self._raw) if self._left is None else min(self._left, len(self._raw)), at)
        self.complete = self._left == 0

    def end(self) -> None:
        """The connection ended.

        Raises:
            BadResponseError: If the response had not.
        """
        if not self.complete and (not self.status or self._chunked or self._left is not None):
            raise BadResponseError("the connection ended within a response")
        self.complete = True

    def _read_head(self) -> bool:
        head, found, rest = self._raw.partition(b"\r\n\r\n")
        if not found:
            if len(self._raw) > _MAX_HEAD_BYTES:
                raise BadResponseError("the head is too long")
            return False
        first, *lines = bytes(head).split(b"\r\n")
        protocol, _, status = first.partition(b" ")
        if protocol != b"HTTP/1.1" or not status[:3].isdigit():
            raise BadResponseError("not HTTP/1.1")
        self.status = int(status[:3])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self._streamed = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        self._chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        if not self._chunked and b"content-length" in headers:
            self._left = _number(headers[b"content-length"], 10)
        self._raw = rest
        return True

    def _read_chunks(self, at: float) -> None:
        while not self.complete:
            if self._left:
                self._take(min(self._left, len(self._raw)), at)
                if self._left:
                    return
            line, found, rest = self._raw.partition(b"\r\n")
            if not found:
                return
            self._raw = rest
            if self._ending:
                self.complete = not line  # trailers end with an empty line
            elif line:
                self._left = _number(bytes(line).partition(b";")[0], 16)
                self._ending = self._left == 0
            # else: the empty line that ends a chunk

    def _take(self, count: int, at: float) -> None:
        part = self._raw[:count]
        del self._raw[:count]
        if self._left is not None:
            self._left -= count
        if self._streamed:
            self._read_lines(part, at)
        else:
            self.body += part

    def _read_lines(self, part: bytearray, at: float) -> None:
        self._line += part
        *lines, self._line = self._line.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self.events.append(Event(at, bytes(line[5:].removesuffix(b"\r").removeprefix(b" "))))


def render_request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Return a request after which the connection closes."""
    fields = {"Host": "bench", "Connection": "close", **headers}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        raise BadResponseError("not a length") from None
    if number < 0:
        raise BadResponseError("not a length")
    return number

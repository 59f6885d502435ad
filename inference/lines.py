"""The serving side of JSON lines over a Unix stream socket (docs/spec/node-protocols.md).

Requests of one connection are carried out one after the other. Whatever comes in, the answer is a closed error code: nothing of what
was received is quoted.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from appliance.core.errors import ApplianceError, RefusedError, UnavailableError, UsageError

MAX_CELL_LINE_BYTES = 64 * 1024
MAX_CONTROL_LINE_BYTES = 64 * 2**20
_NO_ID = 0  # in the reply to a line whose id could not be read


@dataclass(frozen=True)
class Request:
    """One request: `id` and `op`, and the fields that the op takes."""

    id: int
    op: str
    fields: dict[str, Any]

    def take(self, *names: str) -> tuple[Any, ...]:
        """Return exactly these fields.

        Raises:
            UsageError: If one is missing or there is another.
        """
        if set(self.fields) != set(names):
            raise UsageError("the fields are not those of this op")
        return tuple(self.fields[name] for name in names)


class Numbered(Protocol):
    """Whatever a line was read as: its reply bears the same number."""

    @property
    def id(self) -> int:
        """Of the request."""


R = TypeVar("R", bound=Numbered)
Handler = Callable[[R], Awaitable[dict[str, Any] | bytes]]
"""Returns the result, as a JSON object or as the text of one."""


def parse_request(line: bytes) -> Request:
    """Parse one line.

    Raises:
        UsageError: If it is not a JSON object with an integer `id` and a text `op`.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("not a line of JSON") from None
    if not isinstance(value, dict):
        raise UsageError("not a JSON object")
    number, op = value.pop("id", None), value.pop("op", None)
    if type(number) is not int or not isinstance(op, str):
        raise UsageError("a request has an integer id and a text op")
    return Request(number, op, value)


def render_result(number: int, result: dict[str, Any] | bytes) -> bytes:
    """Return the reply's line."""
    if isinstance(result, bytes):
        return b"".join((b'{"id":%d,"ok":true,"result":' % number, result, b"}\n"))
    return _line({"id": number, "ok": True, "result": result})


def render_error(number: int, error: ApplianceError) -> bytes:
    """Return the line of a reply that is an error: its code, message, and field where there is one."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if isinstance(error, RefusedError) and error.field:
        told["field"] = error.field
    return _line({"id": number, "ok": False, "error": told})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8") + b"\n"


async def listen(
    path: Path,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    mode: int,
    line_bytes: int,
) -> asyncio.Server:
    """Listen on a Unix socket that has its mode from the first moment on.

    Args:
        path: Replaced if it is there.
        serve: Called for each connection.
        mode: Who may connect; write permission is what counts (unix(7)).
        line_bytes: Longest line that is read.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0o777 & ~mode)
    try:
        return await asyncio.start_unix_server(serve, path, limit=line_bytes)
    finally:
        os.umask(before)


async def serve_lines(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parse: Callable[[bytes], R],
    handle: Handler[R],
) -> None:
    """Answer the requests of one connection, one after the other, until it ends; every request that was read is carried out."""
    try:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than the reader's limit; what follows cannot be told apart any more
                writer.write(render_error(_NO_ID, UsageError("the line is too long")))
                break
            if not line.endswith(b"\n"):
                break
            writer.write(await _answer(line, parse, handle))
            with suppress(OSError):  # nobody reads any more, but what was asked is still carried out
                await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _answer(line: bytes, parse: Callable[[bytes], R], handle: Handler[R]) -> bytes:
    number = _NO_ID
    try:
        request = parse(line)
        number = request.id
        return render_result(number, await handle(request))
    except ApplianceError as error:
        return render_error(number, error)
    except RecursionError:
        return render_error(number, UsageError("nested too deeply"))
    except OSError:
        return render_error(number, UnavailableError("the system refused"))

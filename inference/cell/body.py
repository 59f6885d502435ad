"""The request body: read into one bounded buffer, parsed once, overwritten.

Nothing here spools: Starlette's form parser, which writes uploads to files, is never called.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from inference.cell import strict_json
from inference.cell.admission import single_header
from inference.cell.errors import Refusal

TIMEOUT_S: Final = 20.0  # NGINX gives up on a slow body sooner; this is for whoever comes past it


async def read_object(request: Request, *, max_bytes: int, may_be_empty: bool = False) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Args:
        request: Its body must not have been read.
        max_bytes: Largest body.
        may_be_empty: An empty body means an empty object.

    Raises:
        Refusal: `body_too_large`, `unsupported_encoding`, `unsupported_media_type`, `invalid_json`, `body_timeout`.
    """
    length = _declared_length(request)
    if length is not None and length > max_bytes:
        raise Refusal("body_too_large")
    _verify_encoding(request)
    if not (may_be_empty and length == 0):
        _verify_media_type(request)
    buffer = bytearray(max_bytes if length is None else length)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            used = await _fill(request, buffer)
        if used == 0 and may_be_empty:
            return {}
        value = strict_json.parse(memoryview(buffer)[:used])
    except TimeoutError:
        raise Refusal("body_timeout") from None
    except ClientDisconnect:
        raise Refusal("invalid_json") from None
    finally:
        buffer[:] = bytes(len(buffer))
    if not isinstance(value, dict):
        raise Refusal("invalid_json")
    return value


async def _fill(request: Request, buffer: bytearray) -> int:
    used = 0
    async for chunk in request.stream():
        if used + len(chunk) > len(buffer):
            raise Refusal("body_too_large")
        buffer[used : used + len(chunk)] = chunk
        used += len(chunk)
    return used


def _declared_length(request: Request) -> int | None:
    """Return Content-Length, None for a chunked body, 0 for none (RFC 9112 section 6.3)."""
    headers = request.scope["headers"]
    if any(name == b"transfer-encoding" for name, _ in headers):
        return None
    text = single_header(headers, b"content-length")
    return int(text) if text is not None and text.isdigit() else 0


def _verify_encoding(request: Request) -> None:
    encodings = [value for name, value in request.scope["headers"] if name == b"content-encoding"]
    if any(value.strip().lower() != b"identity" for value in encodings):
        raise Refusal("unsupported_encoding")


def _verify_media_type(request: Request) -> None:
    kind = single_header(request.scope["headers"], b"content-type") or b""
    if kind.partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal("unsupported_media_type")

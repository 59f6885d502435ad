"""Canonical JSON: one byte string for one value.

A strict subset of RFC 8785 (JCS): objects with ASCII keys, arrays, strings, integers within ±2^53, booleans and
null. No floating-point numbers, so the number-formatting half of RFC 8785 is never needed. What is signed or hashed
in this product is always these bytes, and `decode` refuses every other spelling of the same value: a signed text
must have one encoding.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.core.errors import RefusedError

MAX_SAFE_INTEGER = 2**53 - 1  # RFC 8785 section 3.2.2.3 (I-JSON, RFC 7493 section 2.2)

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]


def encode(value: object) -> bytes:
    """Return the canonical bytes of `value` (UTF-8, no white space, sorted keys).

    Raises:
        RefusedError: If the value holds a float, an integer beyond ±(2^53 - 1), a lone surrogate, a key that is not
            ASCII text, or a type that JSON does not have.
    """
    _check(value, "$")
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RefusedError("text holds a lone surrogate", field="$") from error


def decode(data: bytes) -> Any:
    """Parse canonical bytes; refuse every other spelling of the same value.

    Raises:
        RefusedError: If `data` is not JSON, repeats a key, or is not byte for byte what `encode` would write.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_refuse_float, parse_constant=_refuse_float)
    except (ValueError, RecursionError) as error:
        raise RefusedError("not canonical JSON: it does not parse", field="$") from error
    # Duplicate keys, other key orders, white space and escapes all fail this one comparison.
    if encode(value) != data:
        raise RefusedError("not canonical JSON: a second spelling of the value", field="$")
    return value


def _refuse_float(_text: str) -> Any:
    raise ValueError("floating-point numbers are not canonical")


def _check(value: object, path: str) -> None:
    if value is None or isinstance(value, (bool, str)):
        return
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise RefusedError("integer beyond 2^53 - 1", field=path)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, f"{path}.{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise RefusedError("keys must be ASCII text", field=path)
            _check(item, f"{path}.{key}")
    else:
        raise RefusedError(f"{type(value).__name__} has no canonical form", field=path)

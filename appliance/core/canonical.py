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
    if not _fits(value):
        _refuse(value, "$")
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


def _fits(value: object) -> bool:
    """Return whether a value has a canonical form. This is on every receipt's way many times: no path is built for it."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER  # type: ignore[operator]
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or not key.isascii() or not _fits(item):
                return False
        return True
    if kind is list or kind is tuple:
        return all(map(_fits, value))  # type: ignore[call-overload]
    return isinstance(value, str)  # an enum's member


def _refuse(value: object, path: str) -> None:
    """Raise RefusedError at the first place that has no canonical form."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse(item, f"{path}.{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                raise RefusedError("keys must be ASCII text", field=path)
            _refuse(item, f"{path}.{key}")
    elif type(value) is int and not _fits(value):
        raise RefusedError("integer beyond 2^53 - 1", field=path)
    elif not _fits(value):
        raise RefusedError(f"{type(value).__name__} has no canonical form", field=path)

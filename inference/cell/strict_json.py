"""JSON from a stranger: one meaning or refused.

Refused are invalid UTF-8, lone surrogates, repeated keys, NaN and Infinity (also as 1e999), and nesting beyond
`MAX_DEPTH`: everything that two parsers could read differently, or that costs more than its length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

from inference.cell.errors import Refusal

MAX_DEPTH: Final = 32
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(data: bytearray | memoryview) -> Any:
    """Return the value of a JSON text.

    Raises:
        Refusal: `invalid_json`. The parser's own exceptions hold the whole text, so none is chained or kept.
    """
    failed = False
    value: Any = None
    try:
        value = json.loads(
            str(data, "utf-8"),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError):
        failed = True
    if failed or not _is_plain(value):
        raise Refusal("invalid_json")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("repeated key")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def _refuse(_text: str) -> Any:
    raise ValueError("not a JSON number")


def _is_plain(value: Any) -> bool:
    """Whether the value nests at most `MAX_DEPTH` deep and every text in it can be encoded."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        if any(_is_torn(item) for item in level):
            return False
        level = [child for item in level for child in _children(item)]
    return not any(isinstance(item, (list, dict)) or _is_torn(item) for item in level)


def _is_torn(item: Any) -> bool:
    return isinstance(item, str) and _SURROGATE.search(item) is not None


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return chain(item.keys(), item.values())
    return item if isinstance(item, list) else ()

"""Reads request bodies: JSON, UTF-8, bounded, each key once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser


class StrictJSONParser(BaseParser):
    """Refuses what a second parser could read differently, and what is too large or nested too deep."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,  # noqa: ARG002 - DRF's signature
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        """Return the decoded body.

        Raises:
            ParseError: If it is not such JSON.
        """
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        content = stream.read(limit + 1)
        if len(content) > limit:
            raise ParseError("the body is too large")
        try:
            return json.loads(
                content.decode("utf-8"),
                object_pairs_hook=_unique,
                parse_constant=_refuse,
                parse_float=_refuse,
            )
        except (ValueError, RecursionError) as error:
            raise ParseError("the body is not JSON as this API takes it") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def _refuse(_text: str) -> Any:
    raise ValueError("no floating-point numbers")

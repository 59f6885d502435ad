"""POST /tokenize and POST /detokenize: text to tokens and back. Nothing is decoded, so no session and no receipt."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import Request

from inference.cell import fields as field
from inference.cell.answer import read_content
from inference.cell.cell import Cell
from inference.cell.errors import Refusal
from inference.cell.fields import Schema, read_fields
from inference.cell.prompt import text_tokens

_TOKENIZE: Final = Schema(frozenset(["add_special", "content"]), {})
_DETOKENIZE: Final = Schema(frozenset(["tokens"]), {})


async def tokenize(cell: Cell, request: Request) -> dict[str, Any]:
    """Return the tokens of `content`.

    Raises:
        Refusal: `context_length_exceeded` if they do not fit the model's context, and as its parts say.
    """
    body, _ = await read_content(cell, request)
    fields = read_fields(body, _TOKENIZE)
    content = field.text(fields, "content")
    add_special = field.boolean(fields, "add_special")
    tokens = await text_tokens(cell.engine, content, "content", add_special=add_special)
    _verify_fits(tokens, cell, "content")
    return {"tokens": tokens}


async def detokenize(cell: Cell, request: Request) -> dict[str, Any]:
    """Return what `tokens` say.

    Raises:
        Refusal: As `tokenize`.
    """
    body, bounds = await read_content(cell, request)
    fields = read_fields(body, _DETOKENIZE)
    if "tokens" not in fields:
        raise Refusal("missing_parameter", "tokens")
    tokens = field.token_ids(fields["tokens"], "tokens", bounds.vocabulary_size)
    _verify_fits(tokens, cell, "tokens")
    return {"content": await asyncio.to_thread(cell.engine.text_of, tokens)}


def _verify_fits(tokens: list[int], cell: Cell, name: str) -> None:
    if len(tokens) > cell.engine.context_tokens:
        raise Refusal("context_length_exceeded", name)

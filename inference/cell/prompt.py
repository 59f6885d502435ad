"""From content to tokens, on a worker thread, so that running streams go on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.core.errors import RefusedError
from inference.cell.engine_protocol import CellEngine
from inference.cell.errors import Refusal
from inference.engine.errors import ContextOverflow


@dataclass(frozen=True)
class Prompt:
    """What is to be answered.

    Attributes:
        tokens: All of it.
        shared: How many of the first ones may be copied from another session of the client.
    """

    tokens: list[int]
    shared: int = 0


async def chat_prompt(
    engine: CellEngine,
    messages: list[dict[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    share: bool,
) -> Prompt:
    """Render and tokenise messages, and the tools that the model is offered.

    Args:
        engine: The engine.
        messages, tools: Of the request.
        share: Whether sessions of the client may share what the system's messages and the tools make.

    Raises:
        Refusal: `context_length_exceeded`, `messages_refused`; before any session is opened.
    """
    try:
        tokens = await asyncio.to_thread(engine.prompt_tokens, messages, tools)
        if not share:
            return Prompt(tokens)
        return Prompt(tokens, await asyncio.to_thread(engine.opening_tokens, messages, tools, tokens))
    except ContextOverflow:
        raise Refusal("context_length_exceeded", "messages") from None
    except RefusedError:
        raise Refusal("messages_refused", "messages") from None


async def text_tokens(engine: CellEngine, text: str, field: str, *, add_special: bool) -> list[int]:
    """Tokenise plain text, which never becomes a control token.

    Args:
        engine: The engine.
        text: Any.
        field: Name of the field that the text came in.
        add_special: Begin with the begin-of-sequence token where the model wants one.

    Raises:
        Refusal: `context_length_exceeded`.
    """
    try:
        return await asyncio.to_thread(engine.text_tokens, text, add_special=add_special)
    except ContextOverflow:
        raise Refusal("context_length_exceeded", field) from None

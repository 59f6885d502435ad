"""A chat request, understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.cell import fields as field
from inference.cell.errors import Refusal
from inference.cell.fields import CHAT, Fields, read_fields
from inference.cell.generation import Bounds, Generation, parse_generation
from inference.cell.messages import parse_messages
from inference.cell.response_format import parse_response_format
from inference.cell.tools import Tools, parse_tools
from inference.engine.grammar import Automaton, GrammarTooComplexError
from inference.engine.sampling import MOST_LOGPROBS


@dataclass(frozen=True)
class ChatRequest:
    """A chat request.

    Attributes:
        messages: `{"role", "content"}` with text content, as the chat template takes them.
        generation: How to answer them.
        tools: Which tools may be called, None if none may.
    """

    messages: list[dict[str, Any]]
    generation: Generation
    tools: Tools | None


def parse_chat(body: dict[str, Any], bounds: Bounds) -> ChatRequest:
    """Return the request in a decoded JSON object.

    Raises:
        Refusal: With the name of the field as `param`, except for fields that nobody knows.
    """
    fields = read_fields(body, CHAT)
    tools = parse_tools(fields, bounds.tool_calls)
    generation = parse_generation(
        fields,
        bounds,
        default_tokens=bounds.limits.answer_tokens,
        logprobs=_logprobs(fields),
        grammar=_grammar(fields, tools),
    )
    messages = parse_messages(fields.get("messages"), tool_calls=bounds.tool_calls is not None)
    return ChatRequest(messages, generation, tools)


def _grammar(fields: Fields, tools: Tools | None) -> Automaton | None:
    grammar = parse_response_format(fields)
    if tools is not None:
        grammar = tools.grammar(grammar)
    if grammar is None:
        return None
    try:
        return Automaton(grammar)
    except GrammarTooComplexError:
        raise Refusal("schema_refused", "response_format" if tools is None else "tools") from None


def _logprobs(fields: Fields) -> int | None:
    likeliest = field.integer(fields, "top_logprobs", 0, MOST_LOGPROBS) or 0
    if field.boolean(fields, "logprobs"):
        return likeliest
    if likeliest:
        raise Refusal("logprobs_required", "top_logprobs")
    return None

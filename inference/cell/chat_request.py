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
from inference.engine.sampling import MOST_LOGPROBS


@dataclass(frozen=True)
class ChatRequest:
    """A chat request.

    Attributes:
        messages: `{"role", "content"}` with text content, as the chat template takes them.
        generation: How to answer them.
    """

    messages: list[dict[str, str]]
    generation: Generation


def parse_chat(body: dict[str, Any], bounds: Bounds) -> ChatRequest:
    """Return the request in a decoded JSON object.

    Raises:
        Refusal: With the name of the field as `param`, except for fields that nobody knows.
    """
    fields = read_fields(body, CHAT)
    generation = parse_generation(
        fields,
        bounds,
        default_tokens=bounds.limits.answer_tokens,
        logprobs=_logprobs(fields),
        grammar=parse_response_format(fields),
    )
    return ChatRequest(parse_messages(fields.get("messages")), generation)


def _logprobs(fields: Fields) -> int | None:
    likeliest = field.integer(fields, "top_logprobs", 0, MOST_LOGPROBS) or 0
    if field.boolean(fields, "logprobs"):
        return likeliest
    if likeliest:
        raise Refusal("logprobs_required", "top_logprobs")
    return None

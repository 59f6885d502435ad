"""A text completion request, understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from inference.cell import fields as field
from inference.cell.errors import Refusal
from inference.cell.fields import TEXT, Fields, read_fields
from inference.cell.generation import Bounds, Generation, parse_generation

_DEFAULT_TOKENS: Final = 16  # as the OpenAI API
_MOST_LOGPROBS: Final = 5  # as the OpenAI API, for this endpoint


@dataclass(frozen=True)
class TextRequest:
    """A text completion request.

    Attributes:
        prompt: Text, or tokens of the model's vocabulary.
        generation: How to continue it.
    """

    prompt: str | list[int]
    generation: Generation


def parse_text(body: dict[str, Any], bounds: Bounds) -> TextRequest:
    """Return the request in a decoded JSON object.

    Raises:
        Refusal: With the name of the field as `param`, except for fields that nobody knows.
    """
    fields = read_fields(body, TEXT)
    generation = parse_generation(
        fields,
        bounds,
        default_tokens=min(_DEFAULT_TOKENS, bounds.limits.answer_tokens),
        logprobs=field.integer(fields, "logprobs", 0, _MOST_LOGPROBS),
    )
    return TextRequest(_prompt(fields, bounds.vocabulary_size), generation)


def _prompt(fields: Fields, vocabulary_size: int) -> str | list[int]:
    prompt = fields.get("prompt")
    if prompt is None:
        raise Refusal("missing_parameter", "prompt")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
        raise Refusal("several_prompts", "prompt")
    return field.token_ids(prompt, "prompt", vocabulary_size)

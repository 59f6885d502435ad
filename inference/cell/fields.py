"""Fields of a request's JSON object: which there are, and how one is read.

A field that the OpenAI API has and this version cannot honour is refused by name: an answer that silently ignored it
would be another answer than the one asked for. A field that nobody knows is refused without being named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from inference.cell.errors import Refusal

Fields = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """The fields of one endpoint.

    Attributes:
        known: Fields that are read.
        unsupported: Fields of the OpenAI API that are refused, each with the values that ask for nothing and so do no
            harm.
    """

    known: frozenset[str]
    unsupported: dict[str, tuple[Any, ...]]


# Labels for the provider's own book-keeping. They change no answer; they are taken and dropped.
LABELS: Final = frozenset(["prompt_cache_key", "safety_identifier", "user"])
_GENERATION: Final = LABELS | {
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "min_p",
    "model",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_k",
    "top_p",
}
CHAT: Final = Schema(
    known=_GENERATION
    | {
        "max_completion_tokens",
        "messages",
        "parallel_tool_calls",
        "response_format",
        "tool_choice",
        "tools",
        "top_logprobs",
    },
    unsupported={
        "audio": (),
        "function_call": (),
        "functions": ([],),
        "metadata": ({},),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "prompt_cache_options": (),
        "prompt_cache_retention": (),
        "reasoning_effort": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "verbosity": (),
        "web_search_options": (),
    },
)
TEXT: Final = Schema(
    known=_GENERATION | {"prompt"},
    unsupported={"best_of": (1,), "echo": (False,), "suffix": ("",)},
)


def read_fields(body: dict[str, Any], schema: Schema) -> Fields:
    """Return the fields that were given; null means "not given".

    Raises:
        Refusal: `unsupported_parameter`, `unknown_parameter`.
    """
    fields = {name: value for name, value in body.items() if value is not None}
    for name, value in fields.items():
        if name in schema.unsupported:
            harmless = schema.unsupported[name]
            if not any(type(value) is type(other) and value == other for other in harmless):
                raise Refusal("unsupported_parameter", name)
        elif name not in schema.known:
            raise Refusal("unknown_parameter")
    return fields


def text(fields: Fields, name: str) -> str:
    """Return a required text."""
    value = fields.get(name)
    if value is None:
        raise Refusal("missing_parameter", name)
    if not isinstance(value, str):
        raise Refusal("invalid_value", name)
    return value


def boolean(fields: Fields, name: str, *, default: bool = False) -> bool:
    """Return true or false."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise Refusal("invalid_value", name)
    return value


def integer(fields: Fields, name: str, low: int, high: int) -> int | None:
    """Return an integer from `low` to `high`, None if it was not given."""
    value = fields.get(name)
    if value is None:
        return None
    if not is_integer(value) or not low <= value <= high:
        raise Refusal("invalid_value", name)
    return int(value)


def number(fields: Fields, name: str, low: float, high: float, *, default: float) -> float:
    """Return a number from `low` to `high`."""
    value = fields.get(name, default)
    if not is_number(value) or not low <= value <= high:
        raise Refusal("invalid_value", name)
    return float(value)


def is_integer(value: object) -> bool:
    """Whether a decoded JSON value is an integer: bool is one in Python, not in JSON."""
    return type(value) is int


def is_number(value: object) -> bool:
    """Whether a decoded JSON value is a number."""
    return type(value) in (int, float)


def token_ids(value: object, name: str, vocabulary_size: int) -> list[int]:
    """Return a list of tokens.

    Raises:
        Refusal: `invalid_value`, `unknown_token`.
    """
    if not isinstance(value, list) or not all(map(is_integer, value)):
        raise Refusal("invalid_value", name)
    if value and not 0 <= min(value) <= max(value) < vocabulary_size:
        raise Refusal("unknown_token", name)
    return value

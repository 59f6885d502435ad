"""A chat request: the fields of the OpenAI API that this version knows, each with its type and bounds.

A field that the API has and this version cannot honour is refused by name: an answer that silently ignored it would
be another answer than the one asked for. A field that nobody knows is refused without being named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from appliance.core.bundle import Limits
from inference.cell.errors import Refusal
from inference.cell.messages import parse_messages
from inference.engine.sampling import Sampling

_KNOWN: Final = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "seed",
        "user",
        "top_k",
        "min_p",
    ]
)
# Fields of the API that are refused, each with the values that ask for nothing and so do no harm.
_UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
_MAX_STOPS: Final = 4  # as the OpenAI API
_MAX_STOP_CHARACTERS: Final = 256
# llama.cpp's seeds are 32 bits wide and the largest means "choose one" (LLAMA_DEFAULT_SEED).
_SEEDS: Final = 2**32 - 1


@dataclass(frozen=True)
class ChatRequest:
    """A chat request that was understood.

    Attributes:
        messages: `{"role", "content"}` with text content, as the chat template takes them.
        sampling: How to choose tokens.
        length_given: `max_tokens` is what the client asked for, not what the policy allows.
        stream: Answer as server-sent events.
        include_usage: Send a last chunk with token counts (streams only).
    """

    messages: list[dict[str, str]]
    sampling: Sampling
    length_given: bool
    stream: bool
    include_usage: bool

    def fit(self, prompt_tokens: int, context_tokens: int) -> Sampling:
        """Return the sampling with a length that the context can hold.

        Raises:
            Refusal: `context_length_exceeded` if there is no room for one token, or for as many as were asked for.
        """
        room = context_tokens - prompt_tokens
        if room < 1 or (self.length_given and self.sampling.max_tokens > room):
            raise Refusal("context_length_exceeded", "messages")
        return replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))


def parse_chat(body: dict[str, Any], *, model: str, limits: Limits) -> ChatRequest:
    """Return the request in a decoded JSON object.

    Args:
        body: What the client sent.
        model: Name of the one model that is loaded.
        limits: Of the client.

    Raises:
        Refusal: With the name of the field as `param`, except for fields that nobody knows.
    """
    fields = {name: value for name, value in body.items() if value is not None}  # null means "not given"
    _verify_names(fields)
    if _text(fields, "model") != model:
        raise Refusal("model_not_found", "model")
    if _integer(fields, "n", 1, 2**31, default=1) != 1:
        raise Refusal("unsupported_parameter", "n")
    stream = _boolean(fields, "stream")
    return ChatRequest(
        messages=parse_messages(fields.get("messages")),
        sampling=_sampling(fields, limits),
        length_given="max_tokens" in fields or "max_completion_tokens" in fields,
        stream=stream,
        include_usage=_include_usage(fields, stream=stream),
    )


def _verify_names(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if name in _UNSUPPORTED:
            if not any(
                type(value) is type(harmless) and value == harmless for harmless in _UNSUPPORTED[name]
            ):
                raise Refusal("unsupported_parameter", name)
        elif name not in _KNOWN:
            raise Refusal("unknown_parameter")


def _sampling(fields: dict[str, Any], limits: Limits) -> Sampling:
    seed = _integer(fields, "seed", -(2**63), 2**63 - 1, default=None)
    return Sampling(
        max_tokens=_max_tokens(fields, limits),
        temperature=_number(fields, "temperature", 0.0, 2.0, default=1.0),
        top_p=_number(fields, "top_p", math.nextafter(0.0, 1.0), 1.0, default=1.0),
        top_k=_integer(fields, "top_k", 0, 2**31 - 1, default=0) or 0,
        min_p=_number(fields, "min_p", 0.0, 1.0, default=0.0),
        seed=None if seed is None else seed % _SEEDS,
        stop=_stop(fields),
    )


def _max_tokens(fields: dict[str, Any], limits: Limits) -> int:
    asked = [
        (name, value)
        for name in ("max_tokens", "max_completion_tokens")
        if (value := _integer(fields, name, 1, 2**53, default=None)) is not None
    ]
    if not asked:
        return limits.answer_tokens
    name, value = asked[0]
    if any(other != value for _, other in asked):
        raise Refusal("invalid_value", name)
    if value > limits.answer_tokens:
        raise Refusal("max_tokens_too_large", name)
    return value


def _stop(fields: dict[str, Any]) -> tuple[str, ...]:
    value = fields.get("stop", [])
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS:
        raise Refusal("invalid_value", "stop")
    for stop in stops:
        if not isinstance(stop, str) or not 1 <= len(stop) <= _MAX_STOP_CHARACTERS:
            raise Refusal("invalid_value", "stop")
    return tuple(stops)


def _include_usage(fields: dict[str, Any], *, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict):
        raise Refusal("invalid_value", "stream_options")
    known = {"include_usage", "include_obfuscation"}
    if not known.issuperset(options):
        raise Refusal("unknown_parameter")
    if options.get("include_obfuscation"):
        raise Refusal("unsupported_parameter", "stream_options")
    usage = options.get("include_usage")
    if usage is not None and not isinstance(usage, bool):
        raise Refusal("invalid_value", "stream_options")
    return bool(usage)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise Refusal("missing_parameter", name)
    if not isinstance(value, str):
        raise Refusal("invalid_value", name)
    return value


def _boolean(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise Refusal("invalid_value", name)
    return value


def _integer(fields: dict[str, Any], name: str, low: int, high: int, *, default: int | None) -> int | None:
    value = fields.get(name, default)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:  # bool is an int in Python, not in JSON
        raise Refusal("invalid_value", name)
    return value


def _number(fields: dict[str, Any], name: str, low: float, high: float, *, default: float) -> float:
    value = fields.get(name, default)
    if type(value) not in (int, float) or not low <= value <= high:
        raise Refusal("invalid_value", name)
    return float(value)

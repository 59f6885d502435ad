"""What chat and text completions have in common: how to choose tokens, how many answers, and in which form."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Final

from appliance.core.bundle import Limits
from appliance.core.pin import ToolCalls
from inference.cell import fields as field
from inference.cell.errors import Refusal
from inference.cell.fields import LABELS, Fields
from inference.engine.grammar import Automaton
from inference.engine.sampling import MOST_BIASES, SEEDS, Sampling

MOST_CHOICES: Final = 8
_MAX_STOPS: Final = 4  # as the OpenAI API
_MAX_STOP_CHARACTERS: Final = 256
_TOKEN_ID: Final = re.compile(r"(0|[1-9][0-9]{0,9})\Z", re.ASCII)


@dataclass(frozen=True)
class Bounds:
    """What limits a request besides the API itself.

    Attributes:
        limits: Of the client.
        names: Of the one model that is loaded.
        vocabulary_size: Its tokens.
        streams: Its KV streams.
        tool_calls: How it writes calls of tools, None if it cannot.
    """

    limits: Limits
    names: frozenset[str]
    vocabulary_size: int
    streams: int
    tool_calls: ToolCalls | None = None


@dataclass(frozen=True)
class Generation:
    """How a prompt is to be answered.

    Attributes:
        sampling: How to choose tokens.
        choices: How many answers.
        length_given: `max_tokens` is what the client asked for, not a default.
        stream: Answer as server-sent events.
        include_usage: Send a last chunk with token counts (streams only).
    """

    sampling: Sampling
    choices: int
    length_given: bool
    stream: bool
    include_usage: bool

    def fit(
        self, prompt_tokens: int, context_tokens: int, prompt_field: str, *, rate_tokens: int | None = None
    ) -> tuple[Sampling, ...]:
        """Return the sampling of each choice, with a length that the context can hold.

        A length that nobody asked for also shrinks to what the client's rate can ever give (`rate_tokens`).

        Where a seed is given the choices have it and those that follow: with one seed they would all be the same.

        Raises:
            Refusal: `context_length_exceeded` if there is no room for one token, or for as many as were asked for.
        """
        room = context_tokens - prompt_tokens
        if room < 1 or (self.length_given and self.sampling.max_tokens > room):
            raise Refusal("context_length_exceeded", prompt_field)
        if rate_tokens is not None and not self.length_given:
            room = min(room, max(1, (rate_tokens - prompt_tokens) // self.choices))
        sampling = replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))
        if sampling.seed is None:
            return (sampling,) * self.choices
        return tuple(replace(sampling, seed=(sampling.seed + index) % SEEDS) for index in range(self.choices))


def parse_generation(
    fields: Fields,
    bounds: Bounds,
    *,
    default_tokens: int,
    logprobs: int | None,
    grammar: Automaton | None = None,
) -> Generation:
    """Return what the fields of a request say about its answer.

    Args:
        fields: Of either endpoint.
        bounds: Of the cell.
        default_tokens: Length of an answer where none was asked for.
        logprobs: As `Sampling.logprobs`; each endpoint spells it in its own way.
        grammar: As `Sampling.grammar`.

    Raises:
        Refusal: With the name of the field as `param`.
    """
    if field.text(fields, "model") not in bounds.names:
        raise Refusal("model_not_found", "model")
    for name in LABELS & fields.keys():
        field.text(fields, name)
    asked = _max_tokens(fields, bounds.limits)
    stream = field.boolean(fields, "stream")
    return Generation(
        sampling=replace(
            _sampling(fields, bounds, default_tokens if asked is None else asked, logprobs),
            # When a guess comes true two pieces come at once: who watches the tunnel would see that in a stream.
            lookup=not stream or bounds.limits.guess_in_streams,
            grammar=grammar,
        ),
        choices=_choices(fields, bounds),
        length_given=asked is not None,
        stream=stream,
        include_usage=_include_usage(fields, stream=stream),
    )


def _sampling(fields: Fields, bounds: Bounds, max_tokens: int, logprobs: int | None) -> Sampling:
    seed = field.integer(fields, "seed", -(2**63), 2**63 - 1)
    return Sampling(
        max_tokens=max_tokens,
        temperature=field.number(fields, "temperature", 0.0, 2.0, default=1.0),
        top_p=field.number(fields, "top_p", math.nextafter(0.0, 1.0), 1.0, default=1.0),
        top_k=field.integer(fields, "top_k", 0, 2**31 - 1) or 0,
        min_p=field.number(fields, "min_p", 0.0, 1.0, default=0.0),
        frequency_penalty=field.number(fields, "frequency_penalty", -2.0, 2.0, default=0.0),
        presence_penalty=field.number(fields, "presence_penalty", -2.0, 2.0, default=0.0),
        logit_bias=_logit_bias(fields, bounds.vocabulary_size),
        seed=None if seed is None else seed % SEEDS,
        stop=_stop(fields),
        logprobs=logprobs,
    )


def _max_tokens(fields: Fields, limits: Limits) -> int | None:
    asked = [
        (name, value)
        for name in ("max_tokens", "max_completion_tokens")
        if (value := field.integer(fields, name, 1, 2**53)) is not None
    ]
    if not asked:
        return None
    name, value = asked[0]
    if any(other != value for _, other in asked):
        raise Refusal("invalid_value", name)
    if value > limits.answer_tokens:
        raise Refusal("max_tokens_too_large", name)
    return value


def _choices(fields: Fields, bounds: Bounds) -> int:
    choices = field.integer(fields, "n", 1, MOST_CHOICES) or 1
    if choices > min(bounds.limits.sessions, bounds.streams):
        raise Refusal("too_many_choices", "n")
    return choices


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.get("stop", [])
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS:
        raise Refusal("invalid_value", "stop")
    for stop in stops:
        if not isinstance(stop, str) or not 1 <= len(stop) <= _MAX_STOP_CHARACTERS:
            raise Refusal("invalid_value", "stop")
    return tuple(stops)


def _logit_bias(fields: Fields, vocabulary_size: int) -> tuple[tuple[int, float], ...]:
    value = fields.get("logit_bias", {})
    if not isinstance(value, dict) or len(value) > MOST_BIASES:
        raise Refusal("invalid_value", "logit_bias")
    for token, bias in value.items():
        # One spelling for each token, so that none is there twice.
        if not _TOKEN_ID.match(token) or not field.is_number(bias) or not -100 <= bias <= 100:
            raise Refusal("invalid_value", "logit_bias")
        if int(token) >= vocabulary_size:
            raise Refusal("unknown_token", "logit_bias")
    return tuple((int(token), float(bias)) for token, bias in value.items())


def _include_usage(fields: Fields, *, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict):
        raise Refusal("invalid_value", "stream_options")
    if not {"include_usage", "include_obfuscation"}.issuperset(options):
        raise Refusal("unknown_parameter")
    if options.get("include_obfuscation"):
        raise Refusal("unsupported_parameter", "stream_options")
    usage = options.get("include_usage")
    if usage is not None and not isinstance(usage, bool):
        raise Refusal("invalid_value", "stream_options")
    return bool(usage)

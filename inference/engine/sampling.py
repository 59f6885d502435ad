"""How a request's next token is chosen: the client's parameters, within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import RefusedError
from inference.engine.grammar import Automaton

SEEDS: Final = 2**32
MOST_BIASES: Final = 300
MOST_LOGPROBS: Final = 20  # as the OpenAI API
LOWEST_TEMPERATURE: Final = 1e-9


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of one request.

    Attributes:
        max_tokens: Most tokens to generate, at least 1.
        temperature: 0 (always the likeliest token) to 2.
        top_p: Nucleus, above 0 to 1 (1: off).
        top_k: Likeliest tokens kept (0: all).
        min_p: 0 (off) to 1, relative to the likeliest token.
        frequency_penalty: -2 to 2, taken from a token's logit as often as the answer holds the token.
        presence_penalty: -2 to 2, taken once from the logit of each token that the answer holds.
        logit_bias: Up to 300 pairs of a token and what is added to its logit, -100 to 100.
        seed: 0 to 2^32 - 1, or None for a fresh random one.
        stop: Up to 16 texts that end the answer, none empty.
        logprobs: With each token its log probability and those of this many likeliest (0 to 20); None: neither.
        lookup: Whether tokens may be guessed from the conversation. The answer is the same; when its pieces come then
            depends on what they say, and so does the timing of packets.
        grammar: What the text of the answer must be; None for any.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    lookup: bool = False
    grammar: Automaton | None = None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        # Below it a token whose logit is a millionth less than the highest has a probability of e^-1000 already.
        return self.temperature < LOWEST_TEMPERATURE or self.top_k == 1

    @property
    def shifts(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        return bool(self.logit_bias or self.frequency_penalty or self.presence_penalty)


def verify_sampling(sampling: Sampling, n_vocab: int) -> None:
    """Check the bounds once more before arrays are indexed by them; return None or raise.

    Args:
        sampling: The parameters.
        n_vocab: Tokens of the model's vocabulary.

    Raises:
        RefusedError: Naming the field.
    """
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("max_tokens", sampling.max_tokens, 1, 2**31 - 1),
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, math.nextafter(0.0, 1.0), 1.0),
        ("top_k", sampling.top_k, 0, 2**31 - 1),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0),
        ("presence_penalty", sampling.presence_penalty, -2.0, 2.0),
        ("logit_bias", len(sampling.logit_bias), 0, MOST_BIASES),
        ("seed", sampling.seed or 0, 0, SEEDS - 1),
        ("stop", len(sampling.stop), 0, 16),
        ("logprobs", sampling.logprobs or 0, 0, MOST_LOGPROBS),
    )
    for field, value, low, high in bounds:
        if not low <= value <= high:  # NaN fails as well
            raise RefusedError(f"must be between {low:g} and {high:g}", field=field)
    if not all(sampling.stop):
        raise RefusedError("an empty text cannot stop anything", field="stop")
    for token, bias in sampling.logit_bias:
        if not 0 <= token < n_vocab or not -100.0 <= bias <= 100.0:
            raise RefusedError("no such token, or a bias beyond 100", field="logit_bias")

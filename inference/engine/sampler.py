"""Picks the next token from a row of logits: exact, in numpy, on memory that can be overwritten.

llama.cpp's own chain copies the whole vocabulary into 12-byte records for every token it picks, and sorts records by
comparison where a nucleus comes without a top_k. Here each filter becomes a lower bound on the logit, so that nothing
is sorted but what can be in the nucleus, and the highest bound decides. The filters mean what llama.cpp's mean and
apply in its order (top_k, top_p, min_p, temperature), with one difference: tokens exactly as likely as the last one
kept are kept as well, so that no choice depends on a sort order.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.engine.constraint import Constraint
from inference.engine.errors import EngineFailed
from inference.engine.sampling import Sampling

_TRIES: Final = 8

Logits = NDArray[np.float32]


class Sampler:
    """Picks the tokens of one answer: the likeliest, or a drawn one from a random state of its own.

    Args:
        sampling: Verified against `n_vocab`.
        n_vocab: Tokens of the vocabulary.
    """

    def __init__(self, sampling: Sampling, n_vocab: int) -> None:
        self._sampling = sampling
        self._random = None if sampling.greedy else np.random.Generator(np.random.PCG64(sampling.seed))
        self._shift = _Shift(sampling, n_vocab) if sampling.shifts else None

    def sample(self, logits: Logits, constraint: Constraint | None = None) -> int | None:
        """Return the next token; None if the constraint allows none of the vocabulary.

        Args:
            logits: (n_vocab,) float32. Bias and penalties are added in place: nobody needs the row afterwards.
            constraint: Which tokens may come.

        Raises:
            EngineFailed: If they are not numbers.
        """
        if self._shift is not None:
            logits += self._shift.values
        token = self._pick(logits)
        if constraint is not None:
            held = self._held(logits, token, constraint)
            if held is None:
                return None
            token = held
        if self._shift is not None:
            self._shift.accept(token)
        return token

    def _pick(self, logits: Logits) -> int:
        token = int(logits.argmax())
        if not math.isfinite(logits[token]):  # argmax finds a NaN before any number
            raise EngineFailed("the model's logits are not finite")
        if self._random is not None:
            token = _draw(logits, float(logits[token]), self._sampling, self._random.random())
        return token

    def _held(self, logits: Logits, token: int, constraint: Constraint) -> int | None:
        """Return this token if it may come, else another that may, drawn as if the others had no chance.

        Mostly the first may come. Looking at all tokens is left for where the model wants something else altogether.
        """
        for _ in range(_TRIES):
            if constraint.allows(token):
                return token
            logits[token] = -math.inf
            if logits.max() == -math.inf:
                return None
            token = self._pick(logits)
        allowed = constraint.allowed()
        if not allowed.any():
            return None
        logits[~allowed] = -math.inf
        return self._pick(logits)

    def close(self) -> None:
        """Overwrite what it remembers of the answer."""
        if self._shift is not None:
            self._shift.wipe()


class _Shift:
    """What is added to each logit: the bias, less the penalties for what the answer already holds.

    The penalties are the OpenAI API's: logit[t] - count[t] * frequency - (count[t] > 0) * presence, where count[t] is
    how often t was sampled; the prompt does not count.
    """

    def __init__(self, sampling: Sampling, n_vocab: int) -> None:
        self._frequency = sampling.frequency_penalty
        self._presence = sampling.presence_penalty
        self._sampled = np.zeros(n_vocab, np.bool_)
        self.values = np.zeros(n_vocab, np.float32)
        for token, bias in sampling.logit_bias:
            self.values[token] = bias

    def accept(self, token: int) -> None:
        self.values[token] -= self._frequency if self._sampled[token] else self._frequency + self._presence
        self._sampled[token] = True

    def wipe(self) -> None:
        self.values.fill(0)
        self._sampled.fill(False)


def lowest_kept(logits: Logits, sampling: Sampling) -> float:
    """Return the lowest logit that top_k, top_p and min_p leave a chance; -inf if they leave it to all.

    Args:
        logits: (n,) float32, the highest of them finite.
        sampling: The parameters.
    """
    lowest = -math.inf
    if 0 < sampling.top_k < len(logits):
        lowest = float(np.partition(logits, -sampling.top_k)[-sampling.top_k])
    if sampling.top_p < 1.0:
        candidates = logits if lowest == -math.inf else logits[logits >= lowest]
        lowest = max(lowest, _nucleus_edge(candidates, sampling.top_p))
    if sampling.min_p > 0.0:
        lowest = max(lowest, float(logits.max()) + math.log(sampling.min_p))
    return lowest


def _nucleus_edge(logits: Logits, top_p: float) -> float:
    """Return the lowest logit among the likeliest tokens that together have the probability `top_p`."""
    highest = logits.max()
    weights = np.exp(logits - highest)
    total = float(weights.sum(dtype=np.float64))
    # n tokens below (1 - top_p) / n of the total weigh less than 1 - top_p together. So the others weigh at least top_p,
    # and since they are the likeliest, the nucleus is among them: only they are sorted.
    likely = np.sort(logits[weights >= (1.0 - top_p) * total / len(weights)])[::-1]
    cumulative = np.cumsum(np.exp(likely - highest), dtype=np.float64)
    edge = int(np.searchsorted(cumulative, top_p * total))
    return float(likely[min(edge, len(likely) - 1)])


def _draw(logits: Logits, highest: float, sampling: Sampling, fraction: float) -> int:
    """Return the token in which the cumulated probability of those kept passes `fraction` (0 to below 1)."""
    lowest = lowest_kept(logits, sampling)
    tokens = None if lowest == -math.inf else np.flatnonzero(logits >= np.float32(lowest))
    kept = logits if tokens is None else logits[tokens]
    weights = np.exp((kept - np.float32(highest)) / np.float32(sampling.temperature))
    cumulative = np.cumsum(weights, dtype=np.float64)
    # The first sum above it: a token without probability is never the one, not even for 0.
    index = int(np.searchsorted(cumulative, fraction * cumulative[-1], side="right"))
    return index if tokens is None else int(tokens[index])

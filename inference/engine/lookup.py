"""Prompt lookup: what followed when the same words were last said is a guess at what follows now.

A guess costs nothing but rows in a batch, and the answer never depends on it: every token is chosen from the model's own
logits, and a guess that is not the chosen token is dropped with all after it. Only the stream's own tokens are looked
at. (Saxena, Prompt Lookup Decoding, 2023; the verification is that of speculative decoding, arXiv:2211.17192.)
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FIRST_RATE: Final = 0.7  # of guesses that are right, until some were compared
_WEIGHT: Final = 0.15  # of a comparison

Tokens = NDArray[np.int32]


def find(tokens: Tokens) -> int | None:
    """Return the place behind the latest earlier occurrence of the last two tokens, preferably of the last three.

    Args:
        tokens: (n,) int32.
    """
    if len(tokens) < 3:
        return None
    # Comparisons alone: arrays of tokens would leave their bytes in numpy's cache of small arrays.
    pairs = (tokens[1:-1] == tokens[-1]) & (tokens[:-2] == tokens[-2])
    triples = pairs[1:] & (tokens[:-3] == tokens[-3])
    if triples.any():
        return len(tokens) - 1 - int(triples[::-1].argmax())
    if pairs.any():
        return len(tokens) - 1 - int(pairs[::-1].argmax())
    return None


def learned(rate: float, *, right: bool) -> float:
    """Return the share of right guesses after one more was compared."""
    return rate + _WEIGHT * (right - rate)

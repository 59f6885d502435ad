"""How fast this machine is with this model, and what follows: the length of a chunk or a guess, when to try again.

Values and pure functions. The runner measures with its own clock and reports; nothing here looks at one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

STALL_STEPS: Final = 4.0  # a chunk may delay the decoding streams by this many of their steps,
STALL_S: Final = (
    0.4  # or by so many seconds if that is more: hardly noticed, and short chunks cost a fifth more per token
)
TYPICAL_TOKENS: Final = 32  # a shorter chunk costs more per token than those whose length is to be chosen
MIN_RETRY_S: Final = 1
MAX_RETRY_S: Final = 60
UNKNOWN_RETRY_S: Final = 2
MOST_ROWS: Final = 16  # of a step with guesses
_ROWS: Final = (4, 8, MOST_ROWS)  # llama.cpp's repacked kernels read weights once for four rows
_GROWTH: Final = 0.6  # a step of n times the rows takes n^0.6 times as long, until it was measured

_WEIGHT: Final = 0.2  # of a new measurement: follows a growing context, not a single hiccup


@dataclass(frozen=True)
class Speed:
    """What was measured lately, as exponential averages; None where nothing was.

    Attributes:
        token_s: Seconds per prompt token.
        step_s: Seconds per decode step, whatever its number of rows.
        rows_s: Seconds per decode step with this many rows.
    """

    token_s: float | None = None
    step_s: float | None = None
    rows_s: Mapping[int, float] = field(default_factory=dict)

    def prefilled(self, tokens: int, elapsed_s: float) -> Speed:
        """Return the speed after a chunk of so many tokens."""
        if tokens < TYPICAL_TOKENS:
            return self
        return replace(self, token_s=_blend(self.token_s, elapsed_s / tokens))

    def decoded(self, elapsed_s: float, rows: int) -> Speed:
        """Return the speed after a decode step."""
        rows_s = {**self.rows_s, rows: _blend(self.rows_s.get(rows), elapsed_s)}
        return replace(self, step_s=_blend(self.step_s, elapsed_s), rows_s=rows_s)

    def step_of(self, rows: int) -> float | None:
        """Return the seconds of a decode step with so many rows, estimated from one with fewer if need be."""
        known = max((n for n in self.rows_s if n <= rows), default=None)
        return None if known is None else self.rows_s[known] * (rows / known) ** _GROWTH


UNMEASURED: Final = Speed()


def chunk_tokens(speed: Speed, *, default: int, unit: int, most: int) -> int:
    """Return how many prompt tokens fit between two decode steps.

    So many that they take about `STALL_STEPS` decode steps or `STALL_S`, whichever is longer: whoever is being answered
    meets no longer gaps, and whoever is being read has most of the machine. Decode steps are the cheaper for each token
    the more streams take part, so it pays to have read the prompts that wait.

    Args:
        speed: What was measured.
        default: The answer if that is nothing.
        unit: The answer is a multiple of it, so that batches keep their shape while the speed wavers; and not less.
        most: Upper bound, at least `unit`.
    """
    if not speed.token_s or not speed.step_s:
        return min(default, most)
    fitting = min(max(STALL_STEPS * speed.step_s, STALL_S) / speed.token_s, float(most))
    return max(unit, int(fitting) // unit * unit)


def guesses_worth(speed: Speed, *, streams: int, rate: float, most: int) -> int:
    """Return how many guessed tokens each stream should have checked in the next step, 0 if none is worth its row.

    With a share r of right guesses, n of them bring (1 - r^(n+1)) / (1 - r) tokens in a step instead of one.

    Args:
        speed: What was measured.
        streams: How many decode.
        rate: Share of guesses that were right lately, 0 to below 1.
        most: Upper bound.
    """
    alone = speed.step_of(streams)
    if alone is None:
        return 0
    best, best_gain = 0, 1.0
    for rows in _ROWS:
        count = min(rows // streams - 1, most)
        step_s = speed.step_of(streams * (count + 1))
        if count < 1 or not step_s:
            continue
        gain = sum(rate**n for n in range(count + 1)) * alone / step_s
        if gain > best_gain:
            best, best_gain = count, gain
    return best


def retry_after_s(speed: Speed, *, prompt_tokens: int, answers: Sequence[int], ahead: int) -> int:
    """Return in how many seconds a stream is likely to be free, 1 to 60.

    Prompts are read first, then the answers end in the order of what is left of them, and those who wait already take
    the streams that come free first. Answers may end early, so this errs towards too long; and streams of idle
    sessions come free at a time that no measurement knows.

    Args:
        speed: What was measured.
        prompt_tokens: Left to prefill in all streams together.
        answers: Most tokens left of each answer in progress.
        ahead: Requests that wait already.
    """
    if not speed.token_s or not speed.step_s or not answers:
        return UNKNOWN_RETRY_S
    rounds, place = divmod(ahead, len(answers))
    tokens = rounds * max(answers) + sorted(answers)[place]
    seconds = prompt_tokens * speed.token_s + tokens * speed.step_s
    return max(MIN_RETRY_S, min(math.ceil(seconds), MAX_RETRY_S))


def _blend(before: float | None, measured: float) -> float:
    return measured if before is None else before + _WEIGHT * (measured - before)

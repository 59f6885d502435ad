"""How fast this machine is with this model, and what follows from it: the length of a chunk, when to try again.

Values and pure functions. The runner measures with its own clock and reports; nothing here looks at one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STALL_STEPS: Final = 4.0  # a chunk may delay the decoding streams by this many of their steps
TYPICAL_TOKENS: Final = 32  # a shorter chunk costs more per token than those whose length is to be chosen
MIN_RETRY_S: Final = 1
MAX_RETRY_S: Final = 60
UNKNOWN_RETRY_S: Final = 2

_WEIGHT: Final = 0.2  # of a new measurement: follows a growing context, not a single hiccup


@dataclass(frozen=True)
class Speed:
    """What was measured lately, as exponential averages; None where nothing was.

    Attributes:
        token_s: Seconds per prompt token.
        step_s: Seconds per decode step, whatever its number of streams.
    """

    token_s: float | None = None
    step_s: float | None = None

    def prefilled(self, tokens: int, elapsed_s: float) -> Speed:
        """Return the speed after a chunk of so many tokens."""
        if tokens < TYPICAL_TOKENS:
            return self
        return Speed(_blend(self.token_s, elapsed_s / tokens), self.step_s)

    def decoded(self, elapsed_s: float) -> Speed:
        """Return the speed after a decode step."""
        return Speed(self.token_s, _blend(self.step_s, elapsed_s))


UNMEASURED: Final = Speed()


def chunk_tokens(speed: Speed, *, default: int, unit: int, most: int) -> int:
    """Return how many prompt tokens fit between two decode steps.

    So many that they take about `STALL_STEPS` decode steps: whoever is being answered meets gaps of five steps at
    most, and whoever is being read has four fifths of the machine.

    Args:
        speed: What was measured.
        default: The answer if that is nothing.
        unit: The answer is a multiple of it, so that batches keep their shape while the speed wavers; and not less.
        most: Upper bound, at least `unit`.
    """
    if not speed.token_s or not speed.step_s:
        return min(default, most)
    fitting = min(STALL_STEPS * speed.step_s / speed.token_s, float(most))
    return max(unit, int(fitting) // unit * unit)


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

"""Figures of a run, from the moments at which pieces of answers came. Pure.

Definitions as the field uses them: TTFT, from sending a request to its first text; inter-token time, from one piece of
text to the next of the same answer; tokens per second, all tokens of the answers over the time from the first request
to the last piece.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.bench.serve.client import Answer


@dataclass(frozen=True)
class Figures:
    """What one run of one case on one server came to.

    Attributes:
        tokens_per_s: All tokens over all the time, prompts included.
        decode_tokens_per_s: Of one stream between its first and last piece; the median over the answers.
        ttft_ms: Median time to the first text of the answers that wait for one.
        gap_p50_ms, gap_p99_ms: Inter-token time.
        peak_bytes: Largest resident memory of the serving processes together.
        prompt_tokens, tokens: Sums, as the server counted.
        answers: How many.
    """

    tokens_per_s: float
    decode_tokens_per_s: float
    ttft_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    peak_bytes: int
    prompt_tokens: int
    tokens: int
    answers: int


@dataclass(frozen=True)
class Window:
    """A time that matters more than the rest of a run: only inter-token times that touch it count."""

    start: float
    stop: float


def summarise(
    answers: Sequence[Answer], *, waited: Sequence[Answer], window: Window | None, peak_bytes: int
) -> Figures:
    """Return the figures of a run.

    Args:
        answers: All, at least one.
        waited: Those whose time to the first text counts, at least one.
        window: When inter-token times count; None for always.
        peak_bytes: Of the servers.
    """
    tokens = sum(answer.tokens for answer in answers)
    start, stop = min(a.sent_at for a in answers), max(a.times[-1] for a in answers)
    between = [gap for answer in answers for gap in gaps_ms(answer, window)]
    return Figures(
        tokens_per_s=tokens / (stop - start),
        decode_tokens_per_s=statistics.median(map(decode_rate, answers)),
        ttft_ms=statistics.median(map(ttft_ms, waited)),
        gap_p50_ms=quantile(between, 0.50),
        gap_p99_ms=quantile(between, 0.99),
        peak_bytes=peak_bytes,
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        tokens=tokens,
        answers=len(answers),
    )


def ttft_ms(answer: Answer) -> float:
    """Return the time to the first text."""
    return (answer.times[0] - answer.sent_at) * 1000


def gaps_ms(answer: Answer, window: Window | None = None) -> list[float]:
    """Return the times between two pieces; only those that touch the window if one is given."""
    pairs: Iterable[tuple[float, float]] = zip(answer.times, answer.times[1:], strict=False)
    if window is not None:
        pairs = ((a, b) for a, b in pairs if b > window.start and a < window.stop)
    return [(after - before) * 1000 for before, after in pairs]


def decode_rate(answer: Answer) -> float:
    """Return tokens per second between the first piece and the last; NaN if all came at once."""
    spent = answer.times[-1] - answer.times[0]
    return (answer.tokens - 1) / spent if spent > 0 else math.nan


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, interpolated between neighbours (Hyndman and Fan's type 7); NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

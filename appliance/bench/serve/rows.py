"""The table that the bench fills: ratios of our figures to a peer's, with the bounds that were set for them. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.bench.report import Check
from appliance.bench.serve.cases import CONTROL, DEFAULT, EXAMPLE, OURS, SLOWED, TUNED
from appliance.bench.serve.metrics import Figures
from appliance.bench.serve.rounds import Round

SINGLE_STREAM: Final = 0.98
_TOKENS_APART: Final = 1.0  # percent


@dataclass(frozen=True)
class Ratio(Check):
    """The median of a ratio over the rounds.

    Attributes:
        low, high: The least and the greatest of them.
    """

    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What is compared.
        cases: Which cases it needs.
        ratio: Ours to the peer's, of one round.
        bound: What the median must keep, None where it is only reported.
        at_least: See `Check`.
    """

    name: str
    cases: tuple[str, ...]
    ratio: Callable[[Round], float]
    bound: float | None
    at_least: bool

    def check(self, rounds: Sequence[Round]) -> Ratio:
        """Return the row's figure."""
        ratios = [self.ratio(figures) for figures in rounds]
        return Ratio(
            name=self.name,
            value=math.nan if any(map(math.isnan, ratios)) else statistics.median(ratios),
            bound=self.bound,
            unit="x",
            n=len(ratios),
            low=min(ratios),
            high=max(ratios),
            at_least=self.at_least,
        )


def of(case: str, figure: str, peer: str, *, ours: str = OURS) -> Callable[[Round], float]:
    """Return the ratio of one figure of one case."""

    def ratio(figures: Round) -> float:
        return _divide(getattr(figures[case, ours], figure), getattr(figures[case, peer], figure))

    return ratio


def memory_per_session(few: str, many: str, peer: str) -> Callable[[Round], float]:
    """Return the ratio of what the sessions that one case has more than another cost in memory."""

    def ratio(figures: Round) -> float:
        ours = figures[many, OURS].peak_bytes - figures[few, OURS].peak_bytes
        return _divide(ours, figures[many, peer].peak_bytes - figures[few, peer].peak_bytes)

    return ratio


def _at_least(name: str, case: str, figure: str, peer: str, bound: float | None) -> Row:
    return Row(name, (case,), of(case, figure, peer), bound, at_least=True)


def _at_most(name: str, case: str, figure: str, peer: str, bound: float | None) -> Row:
    return Row(name, (case,), of(case, figure, peer), bound, at_least=False)


def _streams(count: int) -> list[Row]:
    case, what = f"streams-{count}", f"{count} streams"
    return [
        _at_least(f"{what}, tokens/s vs tuned", case, "tokens_per_s", TUNED, 1.00),
        _at_least(f"{what}, tokens/s vs default", case, "tokens_per_s", DEFAULT, 1.10),
        _at_most(f"{what}, TTFT vs tuned", case, "ttft_ms", TUNED, None),
        _at_most(f"{what}, p99 between tokens vs tuned", case, "gap_p99_ms", TUNED, None),
    ]


def _chat(case: str, what: str) -> list[Row]:
    return [
        _at_most(f"{what}, TTFT vs default", case, "ttft_ms", DEFAULT, 0.50),
        _at_most(f"{what}, TTFT vs tuned", case, "ttft_ms", TUNED, None),
    ]


def _retrieval() -> list[Row]:
    on, off, whole = "retrieval", "retrieval-no-lookup", "retrieval-whole"
    return [
        _at_least("retrieval, decode tokens/s, lookup on, vs tuned", on, "decode_tokens_per_s", TUNED, 1.20),
        _at_least("the same with reading the prompt", on, "tokens_per_s", TUNED, None),
        _at_least(
            "retrieval, decode tokens/s, lookup off, vs tuned", off, "decode_tokens_per_s", TUNED, None
        ),
        _at_least("retrieval, whole answers with prompt and receipt", whole, "tokens_per_s", TUNED, None),
    ]


_ONE, _MANY, _LONG = "streams-1", "streams-8", "long-prompt"
ROWS: Final = (
    _at_least("1 stream, decode tokens/s vs tuned", _ONE, "decode_tokens_per_s", TUNED, SINGLE_STREAM),
    _at_most("1 stream, TTFT vs tuned", _ONE, "ttft_ms", TUNED, None),
    *_streams(4),
    *_streams(8),
    *_streams(16),
    *_streams(32),
    _at_least("1 stream, tokens/s vs example", "example-1", "tokens_per_s", EXAMPLE, None),
    _at_least("8 streams, tokens/s vs example", "example-8", "tokens_per_s", EXAMPLE, None),
    *_chat("chat", "8 conversations at once"),
    *_chat("chat-4", "8 conversations, 4 at once"),
    *_chat("chat-16", "16 conversations at once"),
    _at_most("4k prompt, p99 between tokens vs default", _LONG, "gap_p99_ms", DEFAULT, 0.25),
    _at_most("4k prompt, p99 between tokens vs tuned", _LONG, "gap_p99_ms", TUNED, None),
    _at_most("4k prompt, its own TTFT vs default", _LONG, "ttft_ms", DEFAULT, None),
    *_retrieval(),
    Row(
        "memory per additional session vs tuned",
        (_ONE, _MANY),
        memory_per_session(_ONE, _MANY, TUNED),
        bound=1.10,
        at_least=False,
    ),
    _at_least("2 cells x 4 streams vs one server with 8", "cells-2x4", "tokens_per_s", TUNED, 0.80),
    _at_least("4 cells x 2 streams vs one server with 8", "cells-4x2", "tokens_per_s", TUNED, 0.50),
)
_CONTROL: Final = Row(
    "a decode call that takes 10 ms longer fails",
    (CONTROL,),
    of(CONTROL, "decode_tokens_per_s", TUNED, ours=SLOWED),
    SINGLE_STREAM,
    at_least=True,
)


def check_rows(rounds: Sequence[Round]) -> list[Ratio]:
    """Return the rows whose cases were measured."""
    cases = {case for case, _ in rounds[0]}
    return [row.check(rounds) for row in ROWS if cases.issuperset(row.cases)]


def check_control(rounds: Sequence[Round]) -> tuple[str, bool]:
    """Return the name of the positive control, and whether it failed its bound as it must."""
    return _CONTROL.name, not _CONTROL.check(rounds).ok


def check_tokens(rounds: Sequence[Round], forced: Iterable[str]) -> Check:
    """Return how far apart, at most, the sides of a case are in the tokens that they counted.

    A ratio of speeds means something only where both did the same work.

    Args:
        forced: The cases in which every answer has the length that was asked for.
    """
    apart = [0.0]
    for figures in rounds:
        for case in forced:
            sides = [figure for (name, _), figure in figures.items() if name == case]
            apart += [_spread(sides, "prompt_tokens"), _spread(sides, "tokens")]
    return Check("tokens counted, sides apart at most", max(apart), _TOKENS_APART, "%", len(rounds))


def _divide(ours: float, peer: float) -> float:
    """Return the ratio; NaN, which keeps no bound, if there is nothing to compare with."""
    return ours / peer if peer > 0 else math.nan


def _spread(sides: Sequence[Figures], figure: str) -> float:
    counts = [getattr(side, figure) for side in sides]
    return float(100 * (max(counts) - min(counts)) / max(counts))

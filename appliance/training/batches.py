"""Training batches: dialogues as rows of tokens, those of like length together.

Batch `n` of a seed is always the same, so a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from random import Random

import numpy as np
from numpy.typing import NDArray

from appliance.reading.dialogues import Scale, draw_dialogue
from appliance.training.tokenizer import Tokenizer

_ROUND = 32  # lengths of rows are multiples of it, so that there are few different shapes
_POOL = 8  # batches that are drawn and sorted together
IGNORED = -100
"""Target of a token that is not learned."""
Row = tuple[list[int], list[bool]]
"""A dialogue's tokens, and of each whether the assistant said it."""


@dataclass(frozen=True)
class Batch:
    """Rows of (B, T) int64.

    Attributes:
        tokens: What is read.
        positions: Where it stands.
        targets: The next token, `IGNORED` where none is to be learned.
        marks: The number of the nearest citation mark up to here, 0 before the first, `IGNORED` where padding is.
        sources: The number of the passage that the answer cites, 0 for none, `IGNORED` where nothing is to be learned.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    marks: NDArray[np.int64]
    sources: NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        until: Fraction of all steps at which it ends.
        scale: Size of its dialogues.
        longest: Tokens; longer dialogues are left out.
        gaps: Share of the rows whose positions have gaps.
    """

    until: float
    scale: Scale
    longest: int
    gaps: float


# Many short passages come before long ones: which passage a fact is in is learned while its mark is near.
STAGES = (
    Stage(0.109, Scale(passages=4, facts=1, fillers=0, questions=5, absent=3), 256, gaps=0.0),
    Stage(0.30, Scale(passages=4, facts=2, fillers=1, questions=8, absent=4), 448, gaps=0.0),
    Stage(1.01, Scale(passages=4, facts=3, fillers=2, questions=9, absent=5), 640, gaps=0.2),
)
# Takes the last stage's place one time in `_LONG_EVERY`.
LONG = Stage(1.01, Scale(passages=8, facts=5, fillers=5, questions=8, absent=4), 2048, gaps=0.2)
_LONG_EVERY = 12  # pools


class Batches:
    """Makes batches.

    Args:
        tokenizer: Of the model.
        seed: Everything follows from it.
        steps: Length of the whole training.
        tokens: Of a batch, about, padding included.
        context: Positions are below this.
    """

    def __init__(self, tokenizer: Tokenizer, *, seed: int, steps: int, tokens: int, context: int) -> None:
        self._tokenizer = tokenizer
        self._seed, self._steps, self._tokens, self._context = seed, steps, tokens, context
        self._pool_number = -1
        self._pool: list[Batch] = []

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        number, place = divmod(step, _POOL)
        if number != self._pool_number:
            self._pool_number, self._pool = number, self._draw_pool(number)
        return self._pool[place]

    def _draw_pool(self, number: int) -> list[Batch]:
        random = Random(f"{self._seed} {number}")
        stage = next(stage for stage in STAGES if number * _POOL / self._steps < stage.until)
        if stage is STAGES[-1] and number % _LONG_EVERY == 0:
            stage = LONG
        rows: list[Row] = []
        room = self._tokens * _POOL
        while room > 0:
            tokens, said = self._tokenizer.encode_chat(draw_dialogue(random, stage.scale))
            if len(tokens) <= min(stage.longest, self._context):
                rows.append((tokens, said))
                room -= len(tokens)
        rows.sort(key=lambda row: len(row[0]))
        batches = [self._batch(random, group, stage.gaps) for group in _split(rows)]
        random.shuffle(batches)
        return batches

    def _batch(self, random: Random, rows: list[Row], gaps: float) -> Batch:
        length = -(-(max(len(tokens) for tokens, _ in rows) - 1) // _ROUND) * _ROUND
        tokens = np.zeros((len(rows), length), np.int64)
        targets = np.full_like(tokens, IGNORED)
        marks = np.full_like(tokens, IGNORED)
        sources = np.full_like(tokens, IGNORED)
        positions = np.empty_like(tokens)
        for place, (row, said) in enumerate(rows):
            count = len(row) - 1
            tokens[place, :count] = row[:-1]
            targets[place, :count] = np.where(said[1:], row[1:], IGNORED)
            numbers = [self._tokenizer.mark(token) for token in row]
            marks[place, :count] = list(accumulate(numbers[:-1], _last))
            for start, end in _answers(said):
                sources[place, start - 1 : end - 1] = max(numbers[start:end])
            positions[place] = self._positions(random, length, gaps)
        return Batch(tokens, positions, targets, marks, sources)

    def _positions(self, random: Random, length: int, gaps: float) -> NDArray[np.int64]:
        """Return 0, 1, 2 …, with a few gaps in some rows: short rows so teach long distances (as in PoSE)."""
        positions = np.arange(length, dtype=np.int64)
        room = self._context - length
        if random.random() < gaps:
            for _ in range(random.randint(1, 3)):
                gap = random.randint(0, room)
                positions[random.randint(1, length - 1) :] += gap
                room -= gap
        return positions


def _last(earlier: int, number: int) -> int:
    return number or earlier


def _answers(said: list[bool]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each stretch that the assistant said."""
    place = 0
    for is_answer, stretch in groupby(said):
        start, place = place, place + len(list(stretch))
        if is_answer:
            yield start, place


def _split(rows: list[Row]) -> list[list[Row]]:
    """Cut sorted rows into `_POOL` groups of about as many tokens."""
    groups: list[list[Row]] = [[]]
    size, total = 0, sum(len(row) for row, _ in rows)
    for row in rows:
        if size >= total * len(groups) / _POOL and len(groups) < _POOL:
            groups.append([])
        groups[-1].append(row)
        size += len(row[0])
    return groups

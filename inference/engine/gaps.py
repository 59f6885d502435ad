"""Which rows a decode batch has beside those that somebody waits for.

llama.cpp joins rows into one sub-batch only while their streams' ids are consecutive (src/llama-batch.cpp,
split_equal), and each further sub-batch reads all weights again. So gaps are filled with rows that nobody reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final

MOST_GAP: Final = 2  # longer gaps cost more rows than a second sub-batch costs


def has_gaps(decoding: Sequence[int]) -> bool:
    """Whether ascending ids are not consecutive."""
    return bool(decoding) and decoding[-1] - decoding[0] >= len(decoding)


def filled(decoding: Sequence[int], held: Collection[int], free: Collection[int]) -> tuple[int, ...]:
    """Return the streams that have a row in a decode batch, ascending: those that decode, and fillers between them.

    A gap is filled whole or, being worth nothing otherwise, not at all.

    Args:
        decoding: Streams that decode, ascending.
        held: Open streams that may take a filler.
        free: Streams that nobody holds.
    """
    rows = list(decoding[:1])
    for before, after in pairwise(decoding):
        gap = range(before + 1, after)
        if len(gap) <= MOST_GAP and all(index in held or index in free for index in gap):
            rows += gap
        rows.append(after)
    return tuple(rows)

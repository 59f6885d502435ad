"""Which gaps of a decode batch are filled."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.gaps import MOST_GAP, filled, has_gaps

STREAMS = 12
IDS = st.sets(st.integers(0, STREAMS - 1))


@pytest.mark.parametrize(
    ("decoding", "held", "free", "rows"),
    [
        ([], [], [0, 1], ()),
        ([3], [0, 1, 2], [4], (3,)),
        ([0, 1, 2], [], [3], (0, 1, 2)),
        ([0, 2], [1], [], (0, 1, 2)),
        ([0, 2], [], [1], (0, 1, 2)),
        ([0, 3], [1], [2], (0, 1, 2, 3)),
        ([0, 3], [1], [], (0, 3)),  # a gap half filled is still a gap
        ([0, 4], [1, 2, 3], [], (0, 4)),  # too long to pay
        ([0, 2, 6, 8], [1], [3, 4, 5, 7], (0, 1, 2, 6, 7, 8)),
    ],
)
def test_short_gaps_are_filled_whole(
    decoding: list[int], held: list[int], free: list[int], rows: tuple[int, ...]
) -> None:
    assert filled(decoding, held, free) == rows


@given(IDS, IDS, IDS)
def test_rows_ascend_and_add_only_what_closes_a_gap(
    decoding: set[int], held: set[int], free: set[int]
) -> None:
    held, free = held - decoding, free - decoding - held
    rows = filled(sorted(decoding), held, free)
    assert list(rows) == sorted(set(rows))
    assert decoding <= set(rows) <= decoding | held | free
    assert has_gaps(sorted(decoding)) or set(rows) == decoding
    for before, after in pairwise(sorted(decoding)):
        between = [row for row in rows if before < row < after]
        gap = list(range(before + 1, after))
        assert between == (gap if len(gap) <= MOST_GAP and set(gap) <= held | free else [])

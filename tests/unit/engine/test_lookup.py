"""What followed when the same words were last said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.lookup import FIRST_RATE, find, learned


@pytest.mark.parametrize(
    ("tokens", "place"),
    [
        ([], None),
        ([1], None),
        ([1, 1], None),
        ([1, 2, 3, 4], None),
        ([1, 2, 7, 8, 1, 2], 2),
        ([1, 2, 7, 1, 2, 8, 1, 2], 5),  # the latest
        ([0, 1, 2, 7, 5, 1, 2, 8, 0, 1, 2], 3),  # three words in common before two
        ([5, 5, 5], 2),
        ([5, 5, 5, 5], 3),
    ],
)
def test_it_is_found_behind_the_latest_and_longest_match(tokens: list[int], place: int | None) -> None:
    assert find(np.array(tokens, np.int32)) == place


@given(st.lists(st.integers(0, 3), max_size=40))
def test_a_match_is_real_and_lies_before_the_end(tokens: list[int]) -> None:
    place = find(np.array(tokens, np.int32))
    matches = [n for n in range(2, len(tokens)) if tokens[n - 2 : n] == tokens[-2:]]
    assert (place in matches) if matches else place is None


def test_the_share_of_right_guesses_follows_what_is_compared() -> None:
    rate = FIRST_RATE
    for _ in range(50):
        rate = learned(rate, right=True)
    assert 0.99 < rate < 1
    for _ in range(20):
        rate = learned(rate, right=False)
    assert 0 < rate < 0.1

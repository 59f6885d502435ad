"""The health report: coarse where it would tell too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import RefusedError
from appliance.core.health import CONNECTED_S, STEP_S, Fresh, coarse

STEPS = {0, *(factor * 10**power for power in range(16) for factor in (1, 2, 5))}


@given(st.floats(min_value=0, max_value=1e15))
def test_a_rate_is_rounded_down_to_a_step_and_never_by_more_than_half(value: float) -> None:
    rounded = coarse(value)
    assert rounded in STEPS
    assert rounded <= value
    assert value < 2.5 * max(rounded, 1)


@pytest.mark.parametrize(
    ("value", "step"), [(0.9, 0), (1, 1), (4.9, 2), (5, 5), (9.9, 5), (10, 10), (199, 100)]
)
def test_the_steps_are_one_two_and_five(value: float, step: int) -> None:
    assert coarse(value) == step


@pytest.mark.parametrize("left_s", [1, STEP_S - 1, CONNECTED_S + STEP_S, -STEP_S])
def test_no_finer_time_of_a_handshake_is_taken(left_s: int) -> None:
    Fresh.parse({"left_s": STEP_S, "public_keys": []})
    with pytest.raises(RefusedError, match="left_s"):
        Fresh.parse({"left_s": left_s, "public_keys": []})

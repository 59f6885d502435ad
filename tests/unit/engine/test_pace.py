"""Measured speed, and what follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.pace import (
    MAX_RETRY_S,
    MIN_RETRY_S,
    STALL_S,
    STALL_STEPS,
    UNKNOWN_RETRY_S,
    UNMEASURED,
    Speed,
    chunk_tokens,
    guesses_worth,
    retry_after_s,
)

SECONDS = st.floats(1e-9, 1e6)
SPEEDS = st.builds(Speed, st.none() | SECONDS, st.none() | SECONDS)


def test_the_first_measurement_counts_whole_and_later_ones_by_a_fifth() -> None:
    speed = UNMEASURED.decoded(1.0, 1)
    assert speed == Speed(None, 1.0, {1: 1.0})
    assert speed.decoded(2.0, 1).step_s == pytest.approx(1.2)
    assert UNMEASURED.prefilled(100, 2.0) == Speed(0.02, None)


def test_the_end_of_a_prompt_says_nothing_about_long_chunks() -> None:
    assert UNMEASURED.prefilled(3, 1.0) == UNMEASURED


@pytest.mark.parametrize(
    ("token_s", "step_s", "chunk", "stall_s"),
    [
        (0.003, 0.06, 128, STALL_S),  # 2 cores, 135M parameters, 8 streams
        (0.05, 0.5, 32, STALL_STEPS * 0.5),  # a model that is slow for these cores
        (0.0001, 0.001, 512, STALL_S),  # a tiny one
    ],
)
def test_a_chunk_takes_as_long_as_a_few_decode_steps_or_as_nobody_notices(
    token_s: float, step_s: float, chunk: int, stall_s: float
) -> None:
    speed = Speed(token_s=token_s, step_s=step_s)
    assert chunk_tokens(speed, default=128, unit=32, most=512) == chunk
    assert chunk * token_s <= stall_s


def test_without_measurements_a_chunk_has_the_default_length() -> None:
    for speed in (UNMEASURED, Speed(token_s=0.1), Speed(step_s=0.1)):
        assert chunk_tokens(speed, default=128, unit=32, most=512) == 128
        assert chunk_tokens(speed, default=128, unit=32, most=64) == 64


@given(SPEEDS, st.integers(1, 64), st.integers(0, 1000))
def test_a_chunk_is_within_its_bounds_at_any_speed(speed: Speed, unit: int, more: int) -> None:
    most = unit + more
    assert unit <= chunk_tokens(speed, default=unit, unit=unit, most=most) <= most


def test_the_time_until_a_stream_is_free_is_the_work_ahead_of_it() -> None:
    speed = Speed(token_s=0.01, step_s=0.1)
    assert retry_after_s(speed, prompt_tokens=100, answers=[90, 30], ahead=0) == 4  # 1 s of prompts, 30 steps
    assert retry_after_s(speed, prompt_tokens=100, answers=[90, 30], ahead=1) == 10
    assert retry_after_s(speed, prompt_tokens=100, answers=[90, 30], ahead=2) == 13  # a second round


def test_where_nothing_is_measured_or_nothing_runs_the_time_is_a_guess() -> None:
    assert retry_after_s(UNMEASURED, prompt_tokens=9, answers=[9], ahead=0) == UNKNOWN_RETRY_S
    assert retry_after_s(Speed(1.0, 1.0), prompt_tokens=0, answers=[], ahead=3) == UNKNOWN_RETRY_S


@given(SPEEDS, st.integers(0, 10**6), st.lists(st.integers(1, 10**6), max_size=5), st.integers(0, 1024))
def test_the_time_to_try_again_is_always_within_a_minute(
    speed: Speed, prompt_tokens: int, answers: list[int], ahead: int
) -> None:
    seconds = retry_after_s(speed, prompt_tokens=prompt_tokens, answers=answers, ahead=ahead)
    assert MIN_RETRY_S <= seconds <= MAX_RETRY_S


def test_guesses_are_worth_their_rows_only_while_they_come_true() -> None:
    speed = Speed(rows_s={1: 1.0})
    assert guesses_worth(UNMEASURED, streams=1, rate=0.99, most=15) == 0
    assert guesses_worth(speed, streams=1, rate=0.99, most=15) == 15
    assert guesses_worth(speed, streams=1, rate=0.99, most=5) == 5
    assert guesses_worth(speed, streams=1, rate=0.3, most=15) == 0
    assert guesses_worth(speed, streams=1, rate=0.7, most=15) == 3


def test_what_rows_cost_is_measured() -> None:
    flat = Speed(rows_s={1: 1.0, 4: 1.1, 8: 1.2, 16: 4.0})
    assert guesses_worth(flat, streams=1, rate=0.8, most=15) == 7
    steep = Speed(rows_s={1: 1.0, 4: 4.0})
    assert guesses_worth(steep, streams=1, rate=0.8, most=15) == 0


def test_several_streams_share_the_rows_of_a_step() -> None:
    speed = Speed(rows_s=dict.fromkeys(range(1, 17), 1.0))
    worth = [guesses_worth(speed, streams=streams, rate=0.9, most=15) for streams in range(1, 10)]
    assert worth == [15, 7, 4, 3, 2, 1, 1, 1, 0]

"""Laws of the scheduler, without llama.cpp: a simulated cache that only remembers what was decoded where."""

from __future__ import annotations

import tracemalloc

import pytest

from appliance.core.errors import RefusedError
from inference.engine.errors import ContextOverflow, EngineFailed, NoFreeStream, StreamBusy
from inference.engine.pace import UNMEASURED, Speed
from inference.engine.scheduler import CELL_PADDING, FILLER_TOKEN, Scheduler, Step

STREAMS, CONTEXT, CHUNK, BATCH = 3, 40, 4, 8


def make() -> Scheduler:
    return Scheduler(streams=STREAMS, context_tokens=CONTEXT, chunk_tokens=CHUNK, batch_tokens=BATCH)


def run(scheduler: Scheduler, token: int = 9) -> Step:
    """Run one step as the runner does, sampling always the same token."""
    step = scheduler.plan()
    sampled = list(step.decode)
    for index in step.rows:
        stop = scheduler.row(index)[1] + 1
        scheduler.announce(index, stop)
        if index in step.decode:
            scheduler.advance(index, stop)
    if step.chunk is not None:
        scheduler.announce(step.chunk.stream, step.chunk.stop)
        scheduler.advance(step.chunk.stream, step.chunk.stop)
        sampled += [step.chunk.stream] if step.chunk.last else []
    for index in sampled:
        if scheduler.append(index, token):
            scheduler.end(index)
    return step


def test_the_lowest_free_stream_is_claimed() -> None:
    scheduler = make()
    assert [scheduler.open() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(NoFreeStream):
        scheduler.open()
    scheduler.close(1)
    scheduler.close(0)
    assert scheduler.open() == 0


def test_an_answer_has_exactly_max_tokens_tokens() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1, 2, 3], 5)
    while scheduler.busy:
        run(scheduler)
    stream = scheduler.stream(0)
    assert stream.tokens[: stream.known].tolist() == [1, 2, 3, 9, 9, 9, 9, 9]
    assert stream.cached == 7  # nobody needs the logits of the last


def test_what_does_not_fit_is_refused_before_anything_changes() -> None:
    scheduler = make()
    scheduler.open()
    with pytest.raises(ContextOverflow) as overflow:
        scheduler.begin(0, [1] * 30, 11)
    assert (overflow.value.prompt_tokens, overflow.value.limit) == (30, CONTEXT)
    for prompt, most in (([], 1), ([1], 0)):
        with pytest.raises(RefusedError):
            scheduler.begin(0, prompt, most)
    assert not scheduler.busy
    assert scheduler.begin(0, [1] * 30, 10) == 0


def test_a_stream_has_one_answer_at_a_time_and_none_when_closed() -> None:
    scheduler = make()
    with pytest.raises(StreamBusy):
        scheduler.begin(0, [1], 1)
    scheduler.open()
    scheduler.begin(0, [1], 1)
    with pytest.raises(StreamBusy):
        scheduler.begin(0, [1], 1)


def test_the_next_turn_keeps_the_common_prefix_and_leaves_one_token_to_decode() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1, 2, 3], 3)
    while scheduler.busy:
        run(scheduler)
    assert scheduler.begin(0, [1, 2, 3, 9, 9, 5, 6], 1) == 5
    scheduler.end(0)
    assert scheduler.begin(0, [1, 2, 3], 1) == 2  # the last one again, for its logits
    scheduler.end(0)
    assert scheduler.begin(0, [7, 2, 3], 1) == 0


def test_chunks_are_short_while_somebody_waits_for_tokens_and_long_otherwise() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.open()
    scheduler.begin(0, [1] * 20, 10)
    chunk = run(scheduler).chunk
    assert chunk is not None
    assert chunk.stop == BATCH
    scheduler.begin(1, [1], 20)
    run(scheduler)  # stream 1's turn
    step = run(scheduler)
    assert step.decode == (1,)
    assert step.chunk is not None
    assert step.chunk.stop - step.chunk.start == CHUNK


def served(scheduler: Scheduler) -> int:
    """Run a step; return whose prompt got the chunk."""
    chunk = run(scheduler).chunk
    assert chunk is not None
    return chunk.stream


def test_the_prompt_with_the_least_left_is_read_first() -> None:
    scheduler = make()
    for length in (30, 20, 6):
        scheduler.begin(scheduler.open(), [1] * length, 1)
    assert [served(scheduler) for _ in range(4)] == [2, 1, 1, 1]


def test_of_equal_prompts_the_earlier_is_read_first_and_to_its_end() -> None:
    scheduler = make()
    for _ in range(3):
        scheduler.open()
    for index in (2, 0, 1):
        scheduler.begin(index, [1] * 16, 1)
    assert [served(scheduler) for _ in range(6)] == [2, 2, 0, 0, 1, 1]


def test_what_the_cache_holds_does_not_count_as_left_to_read() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1] * 30, 1)
    while scheduler.busy:
        run(scheduler)
    scheduler.open()
    scheduler.begin(1, [1] * 10, 1)
    scheduler.begin(0, [1] * 32, 1)
    assert served(scheduler) == 0


def test_short_prompts_that_keep_coming_do_not_starve_a_long_one() -> None:
    """The worst case of the bound: whenever a stream is free, one more prompt that is as short as can be."""
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1] * 39, 1)
    for index in (1, 2):
        scheduler.open()
        scheduler.begin(index, [1], 1)
    bound = 39 // CHUNK + 1 + STREAMS * CONTEXT // CHUNK
    for step in range(bound):
        if served(scheduler) == 0 and not scheduler.stream(0).prompt:
            assert step > 39 // CHUNK  # it had to wait, or this shows nothing
            return
        for index in (1, 2):
            if not scheduler.stream(index).prompt:
                scheduler.begin(index, [1], 1)
    pytest.fail("the long prompt is starved")


def test_chunks_follow_the_measured_speed() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1], 30)
    run(scheduler)
    scheduler.open()
    scheduler.begin(1, [1] * 30, 1)
    for speed, expected in (
        (UNMEASURED, CHUNK),
        (Speed(token_s=1.0, step_s=0.01), CHUNK),
        (Speed(token_s=1.0, step_s=100.0), BATCH),
    ):
        chunk = scheduler.plan(speed).chunk
        assert chunk is not None
        assert chunk.stop - chunk.start == expected


def decoding(*streams: int, opened: int) -> Scheduler:
    """Return a scheduler in which these streams of the opened ones decode and the others are idle."""
    scheduler = Scheduler(streams=8, context_tokens=CONTEXT, chunk_tokens=CHUNK, batch_tokens=BATCH)
    for index in range(opened):
        assert scheduler.open() == index
    for index in streams:
        scheduler.begin(index, [1, 2], 9)
    while any(scheduler.stream(index).prefilling for index in streams):
        run(scheduler)
    return scheduler


def test_gaps_between_decoding_streams_are_filled_with_rows_at_the_end_of_others() -> None:
    scheduler = decoding(0, 2, 5, opened=6)
    scheduler.close(4)
    step = scheduler.plan()
    assert (step.decode, step.rows, step.fillers) == ((0, 2, 5), (0, 1, 2, 3, 4, 5), (1, 3, 4))
    assert [scheduler.row(index) for index in step.fillers] == [(FILLER_TOKEN, 0)] * 3


def test_a_filler_on_an_idle_session_lies_behind_what_it_keeps_and_is_counted() -> None:
    scheduler = decoding(1, opened=3)
    while scheduler.busy:
        run(scheduler)
    kept = scheduler.stream(1).cached
    for index in (0, 2):
        scheduler.begin(index, [1, 2], 9)
    run(scheduler)
    run(scheduler)
    before = scheduler.stream(1).tokens.tobytes()
    step = scheduler.plan()
    assert step.fillers == (1,)
    assert scheduler.row(1) == (FILLER_TOKEN, kept)
    run(scheduler)
    stream = scheduler.stream(1)
    assert (stream.cached, stream.high_water, stream.tokens.tobytes()) == (kept, kept + 1, before)


def test_a_filler_on_a_free_stream_is_counted_for_whoever_opens_it() -> None:
    scheduler = decoding(0, 2, opened=3)
    scheduler.close(1)
    run(scheduler)
    assert scheduler.open() == 1
    assert scheduler.stream(1).high_water == 1
    scheduler.close(1)
    assert scheduler.open() == 1
    assert scheduler.stream(1).high_water == 0


def test_a_long_idle_session_is_not_used_to_fill_a_gap_between_short_ones() -> None:
    """Attention runs over the longest stream of a sub-batch, so it would cost every row."""
    context = 3 * CELL_PADDING
    scheduler = Scheduler(streams=3, context_tokens=context, chunk_tokens=32, batch_tokens=CELL_PADDING)
    for index, length in enumerate((2, CELL_PADDING + 1, 2)):
        scheduler.open()
        scheduler.begin(index, [1] * length, 300)
    while any(scheduler.stream(index).prefilling for index in range(3)):
        run(scheduler)
    scheduler.end(1)
    while scheduler.stream(0).cached < CELL_PADDING:
        assert scheduler.plan().rows == (0, 2)
        run(scheduler)
    assert scheduler.plan().rows == (0, 1, 2)


def test_high_water_remembers_the_longest_that_a_stream_ever_was() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1] * 30, 1)
    while scheduler.busy:
        run(scheduler)
    scheduler.begin(0, [2] * 3, 1)
    while scheduler.busy:
        run(scheduler)
    assert scheduler.stream(0).cached == 3
    assert scheduler.stream(0).high_water == 30


def test_closing_overwrites_the_tokens() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1, 2, 3], 1)
    tokens = scheduler.stream(0).tokens
    assert tokens.any()
    scheduler.close(0)
    assert not tokens.any()


def test_a_shorter_prompt_leaves_nothing_of_the_longer_one_behind_it() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [5] * 20, 1)
    scheduler.end(0)
    scheduler.begin(0, [6, 6], 1)
    assert not scheduler.stream(0).tokens[2:].any()


def test_progress_that_was_not_planned_is_a_failure() -> None:
    scheduler = make()
    scheduler.open()
    scheduler.begin(0, [1, 2], 1)
    with pytest.raises(EngineFailed):
        scheduler.advance(0, 2)  # not announced
    scheduler.announce(0, 3)
    with pytest.raises(EngineFailed):
        scheduler.advance(0, 3)  # beyond what is known


def test_a_step_allocates_nothing_that_grows_with_the_context() -> None:
    """Python work per token that is proportional to the context is what slow servers do."""
    context = 2**20
    scheduler = Scheduler(streams=3, context_tokens=context, chunk_tokens=64, batch_tokens=64)
    for index in range(3):
        scheduler.open()
        scheduler.begin(index, [1] * 32, context - 32)
    while any(scheduler.stream(index).prefilling for index in range(3)):
        run(scheduler)
    tracemalloc.start()
    try:
        run(scheduler)
        assert tracemalloc.get_traced_memory()[1] < 16_384
    finally:
        tracemalloc.stop()

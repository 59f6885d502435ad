"""Laws of the scheduler, without llama.cpp: a simulated cache that only remembers what was decoded where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.core.errors import RefusedError
from inference.engine.errors import ContextOverflow, EngineFailed, NoFreeStream, StreamBusy
from inference.engine.scheduler import Scheduler, Step

STREAMS, CONTEXT, CHUNK, BATCH = 3, 40, 4, 8


def make() -> Scheduler:
    return Scheduler(streams=STREAMS, context_tokens=CONTEXT, chunk_tokens=CHUNK, batch_tokens=BATCH)


def run(scheduler: Scheduler, token: int = 9) -> Step:
    """Run one step as the runner does, sampling always the same token."""
    step = scheduler.plan()
    ends = {index: scheduler.stream(index).cached + 1 for index in step.decode}
    sampled = list(step.decode)
    for index, stop in ends.items():
        scheduler.announce(index, stop)
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


def test_prompts_take_turns() -> None:
    scheduler = make()
    for index in range(3):
        scheduler.open()
        scheduler.begin(index, [1] * 30, 1)
    turns = [step.chunk.stream for _ in range(6) if (step := run(scheduler)).chunk is not None]
    assert turns == [0, 1, 2, 0, 1, 2]


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


class Sessions(RuleBasedStateMachine):
    """Any order of opening, asking, cancelling, stepping and closing."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make()

    @precondition(lambda self: self.scheduler.free)
    @rule()
    def open(self) -> None:
        lowest = self.scheduler.free[0]
        assert self.scheduler.open() == lowest

    @precondition(lambda self: self.scheduler.held)
    @rule(
        data=st.data(),
        prompt=st.lists(st.integers(0, 3), min_size=1, max_size=CONTEXT + 2),
        most=st.integers(1, 9),
    )
    def begin(self, data: st.DataObject, prompt: list[int], most: int) -> None:
        index = data.draw(st.sampled_from(self.scheduler.held))
        stream = self.scheduler.stream(index)
        before = stream.tokens[: stream.cached].tolist()
        try:
            kept = self.scheduler.begin(index, prompt, most)
        except (ContextOverflow, StreamBusy):
            assert stream.tokens[: stream.cached].tolist() == before
            return
        assert kept < len(prompt)
        assert before[:kept] == prompt[:kept]
        assert stream.tokens[: stream.known].tolist() == prompt

    @precondition(lambda self: self.scheduler.held)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.scheduler.end(data.draw(st.sampled_from(self.scheduler.held)))

    @precondition(lambda self: self.scheduler.held)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.scheduler.close(data.draw(st.sampled_from(self.scheduler.held)))

    @rule()
    def step(self) -> None:
        planned = self.scheduler.plan()
        assert self.scheduler.plan() == planned
        assert bool(planned.decode or planned.chunk) == self.scheduler.busy
        assert list(planned.decode) == sorted(set(planned.decode))
        run(self.scheduler)

    @rule()
    def finish(self) -> None:
        """Everything ends: no answer is starved, whatever the others do."""
        bound = STREAMS * 2 * CONTEXT
        for _ in range(bound):
            if not self.scheduler.busy:
                return
            run(self.scheduler)
        raise AssertionError("some answer never ends")

    @invariant()
    def cells_are_within_the_mark_and_the_context(self) -> None:
        for index in self.scheduler.held:
            stream = self.scheduler.stream(index)
            assert stream.cached <= stream.high_water <= CONTEXT
            assert stream.cached <= stream.known <= CONTEXT


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=STREAMS))
def test_a_waiting_prompt_gets_a_chunk_within_as_many_steps_as_there_are_streams(lengths: list[int]) -> None:
    scheduler = make()
    for index, length in enumerate(lengths):
        scheduler.open()
        scheduler.begin(index, [1] * length, 5)
    waited = dict.fromkeys(range(len(lengths)), 0)
    while scheduler.busy:
        waiting = [i for i in waited if scheduler.stream(i).prefilling]
        step = run(scheduler)
        for index in waiting:
            served = step.chunk is not None and step.chunk.stream == index
            waited[index] = 0 if served else waited[index] + 1
            assert waited[index] < STREAMS

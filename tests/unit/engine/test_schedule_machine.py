"""Any order of opening, waiting, asking, stepping, cancelling, closing, expiring and draining, without llama.cpp.

A simulated KV cache remembers which token lies where, and a simulated model makes the next token of all of them: a
cell that is missing, doubled, left over or another stream's changes every token after it.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference.engine.admission import Line
from inference.engine.errors import ContextOverflow, StreamBusy
from inference.engine.gaps import MOST_GAP
from inference.engine.pace import UNMEASURED, Speed
from inference.engine.scheduler import FILLER_TOKEN, Scheduler, Step, Stream

STREAMS, CONTEXT, CHUNK, BATCH, LINE = 6, 40, 4, 8, 3
LEAST_SHARED = 3
SPEEDS = (
    UNMEASURED,
    Speed(0.001, 0.0001),
    Speed(0.001, 0.0015),
    Speed(0.001, 1.0),
    Speed(rows_s={1: 1.0}),  # some guesses are worth their rows
    Speed(rows_s=dict.fromkeys(range(1, 17), 1.0)),  # all are
)


def model(tokens: Sequence[int]) -> int:
    """The next token of the simulated model, which likes to repeat what followed the same two tokens before."""
    chance = zlib.crc32(bytes(tokens))
    if chance % 4:
        for place in range(len(tokens) - 2, 1, -1):
            if list(tokens[place - 2 : place]) == list(tokens[-2:]):
                return tokens[place]
    return 1 + chance % 250


def reference(prompt: Sequence[int], count: int) -> list[int]:
    """Return what a prompt's answer is when nothing else exists."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(model(tokens))
    return tokens[len(prompt) :]


def bound(prompt_tokens: int) -> int:
    """Chunks within which a prompt is read to its end, as the scheduler promises."""
    return -(-prompt_tokens // CHUNK) + STREAMS * -(-CONTEXT // CHUNK)


@dataclass
class Answer:
    """One answer: what was asked, what came, how long its prompt waits."""

    prompt: list[int]
    most: int
    to_read: int
    chunks: int = 0
    tokens: list[int] = field(default_factory=list)


class Simulator:
    """A scheduler with the simulated cache behind it. Every decode checks what llama.cpp would rely on."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(
            streams=STREAMS, context_tokens=CONTEXT, chunk_tokens=CHUNK, batch_tokens=BATCH
        )
        self.cells: list[list[int]] = [[] for _ in range(STREAMS)]
        self.written = [0] * STREAMS
        self.answers: dict[int, Answer] = {}
        self.accepted = 0
        self.copied = 0
        self.followed = 0
        self.ended: list[Answer] = []

    def open(self) -> int:
        lowest = self.scheduler.free[0]
        assert self.scheduler.open() == lowest
        assert not self.cells[lowest]
        return lowest

    def begin(
        self, stream: int, prompt: list[int], most: int, *, like: int | None = None, shared: int = 0
    ) -> None:
        kept = self.scheduler.begin(stream, prompt, most, lookup=len(prompt) % 3 > 0, like=like)
        assert self.cells[stream][:kept] == prompt[:kept]
        del self.cells[stream][kept:]
        self.answers[stream] = Answer(prompt, most, len(prompt) - kept)
        if like is not None:
            source, cells = like, self.scheduler.shared(stream, like)
        else:
            source, cells = self.scheduler.source(stream, shared)
            assert cells <= shared
        if cells:
            self._copy(source, stream, cells)
            self.copied += 1

    def _copy(self, source: int, stream: int, cells: int) -> None:
        self.scheduler.announce(stream, cells)
        assert len(self.cells[source]) >= cells
        self.cells[stream] = self.cells[source][:cells]
        self.written[stream] = max(self.written[stream], cells)
        self.scheduler.adopt(stream, cells)

    def cancel(self, stream: int) -> None:
        self.scheduler.end(stream)
        answer = self.answers.pop(stream, None)
        if answer is not None:
            self.ended.append(answer)

    def close(self, stream: int) -> None:
        assert self.scheduler.stream(stream).high_water >= self.written[stream]
        self.cancel(stream)
        self.scheduler.close(stream)
        self.cells[stream].clear()
        self.written[stream] = 0

    def step(self, speed: Speed = UNMEASURED) -> Step:
        step = self.scheduler.plan(speed)
        assert step == self.scheduler.plan(speed)
        verify_rows(step)
        guesses = {
            stream: [self.scheduler.stream(stream).tokens.item(place) for place in guess[: step.guessed]]
            for stream, guess in zip(step.decode, step.guesses, strict=bool(step.guesses))
        }
        for stream in step.rows:
            token, position = self.scheduler.row(stream)
            tokens = [token, *guesses.get(stream, [])]
            self.scheduler.announce(stream, position + len(tokens))
            self._write(stream, position, tokens)
            if stream in step.fillers:
                assert token == FILLER_TOKEN
                assert stream not in step.decode
                self.cells[stream].pop()
        for place, stream in enumerate(step.decode):
            self._accept(stream, step.guesses[place][: step.guessed] if step.guesses else range(0))
        for stream in self._prefill(step) if step.chunk is not None else ():
            self._sample(stream, len(self.cells[stream]))
        return step

    def _accept(self, stream: int, guess: range) -> None:
        """Choose tokens as long as the rows behind them hold what was chosen."""
        length = self.scheduler.row(stream)[1] + 1
        for place in [*guess, None]:
            self.scheduler.advance(stream, length)
            token = self._sample(stream, length)
            if (
                place is None
                or not self.scheduler.compare(stream, place, token)
                or stream not in self.answers
            ):
                break
            self.accepted += 1
            length += 1
        del self.cells[stream][self.scheduler.stream(stream).cached :]

    def _prefill(self, step: Step) -> list[int]:
        chunk = step.chunk
        assert chunk is not None
        assert chunk.last or chunk.stop - chunk.start >= CHUNK
        for stream, answer in self.answers.items():
            answer.chunks += self.scheduler.stream(stream).prefilling
            assert answer.chunks <= bound(answer.to_read)
        tokens = self.scheduler.stream(chunk.stream).tokens[chunk.start : chunk.stop].tolist()
        self.scheduler.announce(chunk.stream, chunk.stop)
        self._write(chunk.stream, chunk.start, tokens)
        self.scheduler.advance(chunk.stream, chunk.stop)
        if not chunk.last:
            return []
        followers = self.scheduler.followers(chunk.stream)
        for follower in followers:
            self._copy(chunk.stream, follower, len(self.cells[chunk.stream]))
        self.followed += len(followers)
        return [chunk.stream, *followers]

    def _write(self, stream: int, position: int, tokens: list[int]) -> None:
        assert position == len(self.cells[stream])
        self.cells[stream] += tokens
        assert len(self.cells[stream]) <= CONTEXT
        self.written[stream] = max(self.written[stream], len(self.cells[stream]))

    def _sample(self, stream: int, length: int) -> int:
        token = model(self.cells[stream][:length])
        self.answers[stream].tokens.append(token)
        if self.scheduler.append(stream, token):
            self.cancel(stream)
        return token


def verify_rows(step: Step) -> None:
    assert list(step.rows) == sorted(set(step.rows))
    assert set(step.decode) <= set(step.rows)
    assert all(
        after - before - 1 == 0 or after - before - 1 > MOST_GAP for before, after in pairwise(step.rows)
    )
    assert step.rows[:1] + step.rows[-1:] == step.decode[:1] + step.decode[-1:]  # no filler outside


@dataclass(eq=False)
class Client:
    """Who asks for `count` streams together: waits until `deadline`, then has them or nothing."""

    count: int
    deadline: int
    streams: list[int] = field(default_factory=list)


class Schedule(RuleBasedStateMachine):
    """The engine's life with asyncio and llama.cpp taken away."""

    @initialize()
    def begin_life(self) -> None:
        self.simulator = Simulator()
        self.line: Line[Client] = Line(STREAMS, LINE)
        self.clients: list[Client] = []
        self.waiting: list[Client] = []
        self.now = 0
        self.draining = False

    def _stream(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from([stream for client in self.clients for stream in client.streams]))

    def _give(self, client: Client) -> None:
        client.streams = [self.simulator.open() for _ in range(client.count)]
        self.clients.append(client)

    def _serve(self, served: list[tuple[Client, int]]) -> None:
        for client, count in served:
            assert client is self.waiting.pop(0)  # first come, first served
            assert client.count == count
            self._give(client)

    @precondition(lambda self: not self.draining)
    @rule(patience=st.integers(0, 3), count=st.integers(1, 3))
    def open(self, patience: int, count: int) -> None:
        client = Client(count, self.now + patience)
        if self.line.claim(count):
            assert not self.waiting  # nobody overtakes
            self._give(client)
        elif patience and self.line.join(client, count):
            self.waiting.append(client)
        else:
            assert self.waiting or len(self.simulator.scheduler.free) < count
            assert not patience or len(self.line) == LINE

    @precondition(lambda self: self.clients and not self.draining)
    @rule(
        data=st.data(),
        new=st.lists(st.integers(1, 3), min_size=1, max_size=CONTEXT),
        most=st.integers(1, 9),
        follow=st.booleans(),
        shared=st.integers(0, CONTEXT),
    )
    def ask(self, data: st.DataObject, new: list[int], most: int, shared: int, *, follow: bool) -> None:
        stream = self._stream(data)
        before = list(self.simulator.cells[stream])
        try:
            self.simulator.begin(stream, before + new if follow else new, most, shared=shared)
        except (ContextOverflow, StreamBusy):
            assert self.simulator.cells[stream] == before

    @precondition(lambda self: self.simulator.answers and not self.draining)
    @rule(data=st.data(), most=st.integers(1, 9))
    def ask_for_another_choice(self, data: st.DataObject, most: int) -> None:
        """The same prompt once more, by a stream of the same session: it is read once for both."""
        leader = data.draw(st.sampled_from(sorted(self.simulator.answers)))
        client = next(client for client in self.clients if leader in client.streams)
        stream = data.draw(st.sampled_from(client.streams))
        prompt = self.simulator.answers[leader].prompt
        with contextlib.suppress(ContextOverflow, StreamBusy):
            self.simulator.begin(stream, prompt, most, like=leader)

    @precondition(lambda self: self.clients and not self.draining)
    @rule(data=st.data(), new=st.lists(st.integers(1, 3), min_size=1, max_size=8), most=st.integers(1, 9))
    def ask_with_anothers_opening(self, data: st.DataObject, new: list[int], most: int) -> None:
        """What another session of the client has read already, and something else behind it."""
        stream, other = self._stream(data), self._stream(data)
        opening = self.simulator.cells[other][: data.draw(st.integers(0, CONTEXT))]
        with contextlib.suppress(ContextOverflow, StreamBusy):
            self.simulator.begin(stream, opening + new, most, shared=len(opening))

    @rule(speed=st.sampled_from(SPEEDS))
    def step(self, speed: Speed) -> None:
        busy = self.simulator.scheduler.busy
        step = self.simulator.step(speed)
        assert bool(step.decode or step.chunk) == busy

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        stream = self._stream(data)
        self.simulator.cancel(stream)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(client)
        self._serve(self.line.leave(client))
        assert not self.line.leave(client)  # again does no harm

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.clients))
        stream = data.draw(st.sampled_from(client.streams))
        self.simulator.close(stream)
        client.streams.remove(stream)
        if not client.streams:
            self.clients.remove(client)
        self._serve(self.line.release(1))

    @rule()
    def expire(self) -> None:
        self.now += 1
        for client in [client for client in self.waiting if client.deadline <= self.now]:
            if client in self.waiting:  # it may have been served when another left
                self.waiting.remove(client)
                self._serve(self.line.leave(client))

    @rule()
    def drain(self) -> None:
        self.draining = True
        assert self.line.disperse() == self.waiting
        self.waiting.clear()

    @rule()
    def finish(self) -> None:
        """Everything ends: nobody is starved, whatever the others do."""
        for _ in range(STREAMS * 2 * CONTEXT):
            if not self.simulator.scheduler.busy:
                return
            self.simulator.step()
        raise AssertionError("some answer never ends")

    @invariant()
    def no_stream_is_leaked_or_held_twice(self) -> None:
        held = sorted(stream for client in self.clients for stream in client.streams)
        assert tuple(held) == self.simulator.scheduler.held
        assert self.line.free == len(self.simulator.scheduler.free)

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        assert len(self.line) == len(self.waiting) <= LINE
        assert not self.waiting or self.waiting[0].count > self.line.free

    @invariant()
    def the_schedule_and_the_cache_agree(self) -> None:
        for index in self.simulator.scheduler.held:
            stream = self.simulator.scheduler.stream(index)
            assert stream.tokens[: stream.cached].tolist() == self.simulator.cells[index]
            assert self.simulator.written[index] <= stream.high_water <= CONTEXT
            assert stream.cached <= stream.known <= CONTEXT

    @invariant()
    def answers_are_what_they_are_alone(self) -> None:
        for answer in self.simulator.ended:
            assert answer.tokens == reference(answer.prompt, len(answer.tokens))
        self.simulator.ended.clear()


@pytest.fixture(autouse=True)
def copies_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a context of forty tokens, too."""
    monkeypatch.setattr("inference.engine.scheduler.LEAST_SHARED", LEAST_SHARED)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def other_end(prompt: list[int]) -> list[int]:
    return [*prompt[:-1], 1 + prompt[-1] % 3]


def play(schedule: random.Random) -> tuple[int, int, int, int]:
    """Run one random schedule to its end; return how many filler rows, right guesses, copies and followers it had."""
    simulator, fillers = Simulator(), 0
    for _ in range(30):
        held, free = simulator.scheduler.held, simulator.scheduler.free
        event = schedule.random()
        if event < 0.2 and free:
            simulator.open()
        elif event < 0.25 and held:
            simulator.close(schedule.choice(held))
        elif event < 0.3 and held:
            simulator.cancel(schedule.choice(held))
        elif event < 0.6 and (idle := [stream for stream in held if stream not in simulator.answers]):
            stream, other = schedule.choice(idle), schedule.choice(held)
            kept = simulator.cells[other][: schedule.randint(0, CONTEXT)]
            prompt = kept + [schedule.randint(1, 3) for _ in range(schedule.randint(1, 12))]
            if len(prompt) < CONTEXT:
                most = schedule.randint(1, CONTEXT - len(prompt))
                simulator.begin(stream, prompt, most, shared=schedule.choice((0, len(kept), CONTEXT)))
                for choice in idle[: schedule.randint(0, 2)]:
                    if choice != stream:
                        same = schedule.random() < 0.7
                        simulator.begin(choice, prompt if same else other_end(prompt), most, like=stream)
        fillers += len(simulator.step(schedule.choice(SPEEDS)).fillers)
    while simulator.scheduler.busy:
        fillers += len(simulator.step().fillers)
    for answer in simulator.ended:
        assert answer.tokens == reference(answer.prompt, len(answer.tokens))
    for stream in simulator.scheduler.held:
        simulator.close(stream)
    assert simulator.scheduler.free == tuple(range(STREAMS))
    return fillers, simulator.accepted, simulator.copied, simulator.followed


def test_a_thousand_random_schedules_give_every_stream_the_tokens_it_gets_alone() -> None:
    found = zip(*(play(random.Random(seed)) for seed in range(1000)), strict=True)
    fillers, accepted, copied, followed = map(sum, found)
    assert fillers > 1000  # they were there, and nobody noticed
    assert accepted > 100
    assert copied > 100
    assert followed > 100


FAULTS = (
    "a filler off its place",
    "a wrong token",
    "a wrong guess kept",
    "a copy of another text",
    "a follower of another prompt",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_simulator_notices_what_it_must(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a scheduler with a fault fails the random schedules."""
    original, compare, source, reads = Scheduler.row, Scheduler.compare, Scheduler.source, Scheduler._reads

    def row(self: Scheduler, index: int) -> tuple[int, int]:
        token, position = original(self, index)
        if fault == "a wrong token":
            return 1 + token % 3, position
        return token, position - (fault == "a filler off its place" and token == FILLER_TOKEN)

    def always(self: Scheduler, index: int, place: int, token: int) -> bool:
        return compare(self, index, place, token) or fault == "a wrong guess kept"

    def copy(self: Scheduler, index: int, most: int) -> tuple[int, int]:
        """Take a token more than the two have in common, where the other has one."""
        other, cells = source(self, index, most)
        more = fault == "a copy of another text" and 0 < cells < min(self.stream(other).cached, most)
        return other, cells + more

    def follow(self: Scheduler, index: int | None, stream: Stream) -> bool:
        if fault != "a follower of another prompt" or index is None:
            return reads(self, index, stream)
        leader = self.stream(index)
        same_length = leader.prompt == stream.prompt
        return leader is not stream and leader.follows is None and leader.prefilling and same_length

    def play_some() -> None:
        for seed in range(50):
            play(random.Random(seed))

    monkeypatch.setattr(Scheduler, "row", row)
    monkeypatch.setattr(Scheduler, "compare", always)
    monkeypatch.setattr(Scheduler, "source", copy)
    monkeypatch.setattr(Scheduler, "_reads", follow)
    with pytest.raises(AssertionError):
        play_some()

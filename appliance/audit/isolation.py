"""The promise that sessions never influence each other, on random schedules of a real model.

One session, the guest, does the same in every run of a schedule: the same prompts at the same steps. Its neighbours do the
same kind of things, but say something else in each run. Batch shapes are then equal, and every row of logits that the
guest's tokens are chosen from must be equal to the last bit. What the shape of a batch alone changes is measured
beside it, since no neighbour's words can be told from that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.bench.report import Check, Report
from appliance.core.pin import Launch
from appliance.models import PinnedModel
from inference.engine.llama import Context
from inference.engine.loading import Loaded, load
from inference.engine.pace import UNMEASURED, Speed
from inference.engine.runner import Piece, Runner
from inference.engine.sampling import Sampling
from inference.engine.scheduler import Scheduler
from inference.engine.state_blob import parse_state

Progress = Callable[[str, int, int], None]
Rows = list[NDArray[np.float32]]

_LAUNCH: Final = Launch(context_tokens=512, max_sessions=5, batch_tokens=128)
_CHUNK_TOKENS: Final = 32
_EVENTS: Final = 24  # of a schedule
_TURNS: Final = 3  # of the guest
_LONGEST_PROMPT: Final = 90
_SEPARATORS: Final = (
    32  # tokens that nobody's answer has; what stands behind one is never in the cache by chance
)


@dataclass(frozen=True)
class Event:
    """Something that happens in a schedule.

    Attributes:
        what: `ask` (a new prompt), `follow` (what was told before and more), `cancel`, `close`, or `guest`: its next turn.
        who: Which neighbour.
        prompt, answer: Lengths in tokens.
        steps: Of the engine until the next event.
    """

    what: str
    who: int
    prompt: int
    answer: int
    steps: int


def draw_schedule(random: Random) -> list[Event]:
    """Draw what happens, without what is said."""
    events = [
        Event(
            random.choices(("ask", "follow", "cancel", "close"), (5, 3, 1, 1))[0],
            random.randrange(_LAUNCH.max_sessions - 1),
            random.randint(1, _LONGEST_PROMPT),
            random.randint(1, 12),
            random.randint(0, 4),
        )
        for _ in range(_EVENTS)
    ]
    for place in sorted(random.sample(range(_EVENTS), _TURNS), reverse=True):
        events.insert(
            place, Event("guest", 0, random.randint(1, 40), random.randint(2, 10), random.randint(0, 4))
        )
    return events


class Watched(Runner):
    """A runner that keeps the guest's rows of logits, and whose chunks do not depend on how fast the machine is."""

    guest = -1

    def __init__(self, loaded: Loaded) -> None:
        scheduler = Scheduler(
            streams=_LAUNCH.max_sessions,
            context_tokens=_LAUNCH.context_tokens,
            chunk_tokens=_CHUNK_TOKENS,
            batch_tokens=_LAUNCH.batch_tokens,
        )
        super().__init__(loaded.context, loaded.layout, loaded.vocabulary, scheduler, ())
        self.context = loaded.context
        self.rows: Rows = []

    @property
    def answering(self) -> bool:
        """Whether the guest's last turn is not over."""
        return self.guest in self._answers

    @property
    def speed(self) -> Speed:
        """Never measured."""
        return UNMEASURED

    @speed.setter
    def speed(self, _speed: Speed) -> None:
        """Drop it."""

    def _next(self, stream: int, row: int) -> tuple[int | None, list[tuple[int, Piece]]]:
        if stream == self.guest:
            self.rows.append(self.context.logits(row).copy())
        return super()._next(stream, row)


class World:
    """One run of a schedule.

    Args:
        loaded: The model.
        seed: Of the schedule and of what the guest says.
        words: Seed of what the neighbours say; None for no neighbours.
        guest_differs: The guest's last prompt has another token (a control).
        leak: Before each turn of the guest, a byte of its keys and values depends on what a neighbour says (a control).
    """

    def __init__(
        self, loaded: Loaded, seed: int, words: int | None, *, guest_differs: bool = False, leak: bool = False
    ) -> None:
        self._runner = Watched(loaded)
        self._context = loaded.context
        self._events = draw_schedule(Random(f"schedule {seed}"))
        self._guest_words = Random(f"guest {seed}")
        self._words = None if words is None else Random(f"neighbours {seed} {words}")
        plain = [token for token, piece in enumerate(loaded.vocabulary.pieces) if piece.isascii() and piece]
        self._separators, self._plain = plain[:_SEPARATORS], plain[_SEPARATORS:]
        # How long an answer is and what of it is in the cache must not depend on what is said.
        never = [*sorted(loaded.vocabulary.stop_tokens(())), *self._separators]
        self._bias = tuple((token, -100.0) for token in never)
        self._neighbours: dict[int, int] = {}
        self._told: dict[int, list[int]] = {}
        self._guest_told: list[int] = []
        self._differs, self._leaks = guest_differs, leak

    def play(self) -> Rows:
        """Run it to its end and return the guest's rows, each (n_vocab,) float32."""
        turns = [event for event in self._events if event.what == "guest"]
        with self._closing():
            for number, event in enumerate(self._events):
                separator = self._separators[number % _SEPARATORS]
                if event.what == "guest":
                    self._ask_guest(event, separator, last=event is turns[-1])
                elif self._words is not None:
                    self._disturb(event, separator, self._words)
                for _ in range(event.steps):
                    self._runner.step()
            while self._runner.busy:
                self._runner.step()
        return self._runner.rows

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._runner.close_all()

    def _ask_guest(self, event: Event, separator: int, *, last: bool) -> None:
        runner = self._runner
        if runner.guest < 0:
            runner.guest = runner.open()
        while runner.answering:
            runner.step()
        if self._leaks and self._told and self._guest_told:
            _mix_in(self._context, runner.guest, self._told[min(self._told)][-1])
        self._guest_told += [separator, *self._draw(self._guest_words, event.prompt)]
        if self._differs and last:
            self._guest_told[-1] = self._plain[self._plain.index(self._guest_told[-1]) - 1]
        self._start(runner.guest, self._guest_told, event.answer)

    def _disturb(self, event: Event, separator: int, words: Random) -> None:
        stream = self._neighbours.get(event.who)
        if event.what == "close":
            if stream is not None:
                self._runner.close(self._neighbours.pop(event.who))
            return
        if stream is None:
            free_for_guest = 1 if self._runner.guest < 0 else 0
            if len(self._neighbours) + 1 + free_for_guest > _LAUNCH.max_sessions:
                return
            stream = self._neighbours[event.who] = self._runner.open()
        self._runner.cancel(stream)
        if event.what == "cancel":
            return
        told = self._told.get(event.who, []) if event.what == "follow" else []
        if len(told) + 1 + event.prompt + event.answer > _LAUNCH.context_tokens:
            told = []
        told = [*told, separator, *self._draw(words, event.prompt)]
        self._told[event.who] = told
        self._start(stream, told, event.answer)

    def _start(self, stream: int, prompt: Sequence[int], answer: int) -> None:
        self._runner.start(
            stream, prompt, Sampling(max_tokens=answer, temperature=0.0, logit_bias=self._bias)
        )

    def _draw(self, words: Random, count: int) -> list[int]:
        return words.choices(self._plain, k=count)


def _mix_in(context: Context, stream: int, secret: int) -> None:
    """Let a byte of a stream's keys depend on somebody else's token."""
    state = context.read_state(stream)
    next(parse_state(state).tensors())[0] ^= secret % 255 + 1
    context.write_state(stream, state)


def audit_isolation(model: PinnedModel, schedules: int, report: Progress) -> Report:
    """Play random schedules, each with two sets of neighbours.

    Args:
        model: A pin and its weights; its launch settings are replaced.
        schedules: How many, at least 2.
        report: Told what is done, how many are and of how many.

    Raises:
        PinError, EngineFailed: As `loading.load`.
    """
    manifest = model.manifest.model_copy(update={"launch": _LAUNCH})
    with model.weights.open("rb") as weights:
        loaded = load(manifest, weights.fileno(), threads=1)
    try:
        return _audit(loaded, schedules, report)
    finally:
        loaded.release()


def _audit(loaded: Loaded, schedules: int, report: Progress) -> Report:
    compared = different = 0
    by_shape = 0.0
    for seed in range(schedules):
        report("playing schedules", seed, schedules)
        first, second = (World(loaded, seed, words).play() for words in (1, 2))
        alone = World(loaded, seed, None).play()
        if not len(first) == len(second) == len(alone):
            raise AssertionError("the guest's schedule is not the same in two runs")
        compared += len(first)
        different += sum(not _same(one, other) for one, other in zip(first, second, strict=True))
        by_shape = max(
            by_shape, *(float(np.abs(one - other).max()) for one, other in zip(first, alone, strict=True))
        )
    report("controls", schedules, schedules)
    controls = [
        any(_differ(World(loaded, seed, 1).play(), World(loaded, seed, 1, guest_differs=True).play()))
        for seed in range(2)
    ]
    leaks = [
        any(_differ(World(loaded, seed, 1, leak=True).play(), World(loaded, seed, 2, leak=True).play()))
        for seed in range(4)
    ]
    return Report(
        (
            Check(
                "rows of logits that a neighbour's words changed", different, 0, f"of {compared}", schedules
            ),
            Check("largest change of a logit by the shape of a batch alone", by_shape, None, "", compared),
        ),
        "another word of its own changes a session's logits, and so does a byte that depends on a neighbour's word",
        all(controls) and any(leaks),
    )


def _differ(one: Rows, other: Rows) -> list[bool]:
    return [not _same(first, second) for first, second in zip(one, other, strict=True)]


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two rows are equal to the last bit."""
    return one.tobytes() == other.tobytes()

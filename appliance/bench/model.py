"""How well a pinned model reads, and how fast: held-out questions through the engine that serves clients.

Every answer is decoded greedily by llama.cpp through the pin's own template. The positive control asks questions without
their passages: a judge that is content with anything, or a model that knew the answers by heart, fails the run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from appliance.bench.report import Check, Report
from appliance.core.errors import PinError
from appliance.models import PinnedModel
from appliance.reading.exam import Exam, Item, is_exact
from inference.engine.engine import ContextOverflow, Engine, Sampling

Progress = Callable[[str, int, int], None]

_MOST_REPLY_TOKENS = 96
_TIMED_TOKENS, _TIMED_RUNS = 100, 7
_CONTROL_ITEMS = 50
_CONTROL_AT_MOST = 0.1
_SECONDS_AT_MOST = 1.0


@dataclass(frozen=True)
class Part:
    """A kind of question.

    Attributes:
        name: What a report calls it.
        method: Of `Exam`, which writes it.
        bound: Least fraction of exact answers; None where it is only reported.
    """

    name: str
    method: str
    bound: float | None


PARTS = (
    Part("exact answers, one passage", "single_passage", 0.90),
    Part("exact answers, three distractor passages", "distractors", 0.85),
    Part("absent facts called absent", "absent", 0.90),
    Part("exact answers over four turns", "turns", None),
    Part("small talk, word for word", "small_talk", None),
)


@dataclass(frozen=True)
class Marked:
    """An answer and what is thought of it."""

    question: str
    reply: str
    wanted: str
    exact: bool


def measure_model(
    model: PinnedModel, *, questions: int, seed: int, threads: int, progress: Progress
) -> tuple[Report, list[Marked]]:
    """Examine a model.

    Args:
        model: The pin and its weights.
        questions: Of each kind.
        seed: Of the exam; the same seed asks the same questions.
        threads: Threads that compute.
        progress: Told what is being asked, how many are done and of how many.

    Returns:
        The report, and every answer that was wrong.

    Raises:
        PinError: If the engine does not take the model, or its context is too short for the timed answers.
    """
    return asyncio.run(_measure(model, questions, seed, threads, progress))


async def _measure(
    model: PinnedModel, questions: int, seed: int, threads: int, progress: Progress
) -> tuple[Report, list[Marked]]:
    with model.weights.open("rb") as weights:
        engine = Engine.load(
            model.manifest, weights.fileno(), threads=threads, loop=asyncio.get_running_loop()
        )
    try:
        examiner = _Examiner(engine, model.manifest.launch.max_sessions, progress)
        checks, wrong = [], []
        for part in PARTS:
            exam = Exam(seed)
            marked = await examiner.ask(part.name, [getattr(exam, part.method)() for _ in range(questions)])
            wrong += [answer for answer in marked if not answer.exact]
            checks.append(_fraction(part.name, marked, part.bound))
        exam = Exam(seed)
        blind = [replace(exam.single_passage(), context="") for _ in range(min(questions, _CONTROL_ITEMS))]
        control = _fraction("", await examiner.ask("control: no passages", blind), None)
        checks.append(await _timed(engine, Exam(seed), progress))
    finally:
        await engine.aclose()
    name = "without its passage no question is answered"
    return Report(tuple(checks), name, control.value <= _CONTROL_AT_MOST), wrong


def _fraction(name: str, marked: Sequence[Marked], bound: float | None) -> Check:
    exact = sum(answer.exact for answer in marked)
    return Check(name, exact / len(marked), bound, "of 1", len(marked), at_least=True)


class _Examiner:
    """Has many conversations at once, as many as the engine has streams."""

    def __init__(self, engine: Engine, streams: int, progress: Progress) -> None:
        self._engine = engine
        self._free = asyncio.Semaphore(streams)
        self._progress = progress

    async def ask(self, name: str, items: Sequence[Item]) -> list[Marked]:
        """Return the marked answers of all turns of all conversations."""
        done = 0

        async def one(item: Item) -> list[Marked]:
            nonlocal done
            async with self._free:
                marked = await self._converse(item)
            done += 1
            self._progress(name, done, len(items))
            return marked

        return [marked for answers in await asyncio.gather(*map(one, items)) for marked in answers]

    async def _converse(self, item: Item) -> list[Marked]:
        marked: list[Marked] = []
        messages: list[dict[str, str]] = []
        stream = await self._engine.open_stream()
        try:
            for turn, question in enumerate(item.questions):
                messages.append({"role": "user", "content": item.user_message(turn)})
                reply, _ = await _reply(self._engine, stream, messages, _MOST_REPLY_TOKENS)
                messages.append({"role": "assistant", "content": reply})
                exact = is_exact(reply, question, item.values)
                marked.append(Marked(question.text, reply, question.answer, exact))
        finally:
            await self._engine.close_stream(stream)
        return marked


async def _timed(engine: Engine, exam: Exam, progress: Progress) -> Check:
    """Time answers of about a hundred tokens, a prompt of passages included, one at a time."""
    seconds = []
    for run in range(_TIMED_RUNS):
        messages = [{"role": "user", "content": exam.quotation()}]
        stream = await engine.open_stream()
        try:
            started = time.perf_counter()
            _, tokens = await _reply(engine, stream, messages, _TIMED_TOKENS)
            if not tokens:
                raise PinError("the context is too short for the exam", field="launch.context_tokens")
            seconds.append((time.perf_counter() - started) * _TIMED_TOKENS / tokens)
        finally:
            await engine.close_stream(stream)
        progress("timing", run + 1, _TIMED_RUNS)
    name = f"answer of {_TIMED_TOKENS} tokens, median, on {os.cpu_count()} cores"
    return Check(name, statistics.median(seconds), _SECONDS_AT_MOST, "s", _TIMED_RUNS)


async def _reply(
    engine: Engine, stream: int, messages: Sequence[dict[str, str]], max_tokens: int
) -> tuple[str, int]:
    """Return a greedy answer and how many tokens it has; a conversation that fits no context gets none."""
    try:
        prompt = engine.prompt_tokens(messages)
        pieces = engine.generate(stream, prompt, Sampling(max_tokens=max_tokens, temperature=0.0))
    except ContextOverflow:
        return "", 0
    texts, tokens = [], 0
    async for piece in pieces:
        texts.append(piece.text)
        tokens += piece.tokens
    return "".join(texts), tokens

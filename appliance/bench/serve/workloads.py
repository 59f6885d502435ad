"""How the load behaves: who asks when. Each workload drives running servers and returns the answers it got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.bench.serve.client import Answer, Endpoint, Message, ask, close_session, open_session
from appliance.bench.serve.metrics import Window
from appliance.bench.serve.prompts import Prompts
from appliance.bench.serve.running import Servers

PROMPT_TOKENS, ANSWER_TOKENS = 128, 64
TURNS, TURN_TOKENS, TURN_ANSWER_TOKENS = 6, 48, 32
LONG_TOKENS, LONG_ANSWER_TOKENS = 4096, 16
_RUNNING_TOKENS: Final = 160  # of each stream that runs while the long prompt comes
_UNDER_WAY: Final = 8  # pieces that each of them has sent by then
_RETRIEVAL_TOKENS: Final = 96


@dataclass(frozen=True)
class Run:
    """What a workload got.

    Attributes:
        answers: All of them.
        waited: Those whose time to the first text counts.
        window: When inter-token times count; None for always.
    """

    answers: Sequence[Answer]
    waited: Sequence[Answer]
    window: Window | None = None


Workload = Callable[[Servers, Prompts], Awaitable[Run]]


@dataclass(frozen=True)
class Streams:
    """Cold prompts, always so many at once: each asks the next as soon as it has its answer.

    Attributes:
        at_once: How many.
        each: How many prompts each of them asks.
        stream: Whether answers are streamed.
    """

    at_once: int
    each: int
    stream: bool = True

    async def __call__(self, servers: Servers, prompts: Prompts) -> Run:
        """Run it."""
        texts = [
            [prompts.first_message(PROMPT_TOKENS) for _ in range(self.each)] for _ in range(self.at_once)
        ]

        async def one(endpoint: Endpoint, mine: list[str]) -> list[Answer]:
            return [await ask(endpoint, [_user(text)], ANSWER_TOKENS, stream=self.stream) for text in mine]

        per_stream = await asyncio.gather(*map(one, _deal(servers, self.at_once), texts))
        answers = [answer for mine in per_stream for answer in mine]
        return Run(answers, answers)


@dataclass(frozen=True)
class Chat:
    """Conversations of six turns, each turn with the whole history. The first turn of each is not counted as waiting.

    Attributes:
        sessions: Conversations that are open at once.
        at_once: Most of them that wait for an answer at the same time.
    """

    sessions: int
    at_once: int

    async def __call__(self, servers: Servers, prompts: Prompts) -> Run:
        """Run it."""
        texts = [[prompts.words(TURN_TOKENS) for _ in range(TURNS)] for _ in range(self.sessions)]
        turn = asyncio.Semaphore(self.at_once)

        async def one(endpoint: Endpoint, mine: list[str]) -> list[Answer]:
            session, history, answers = await open_session(endpoint), list[Message](), list[Answer]()
            for text in mine:
                history.append(_user(text))
                async with turn:
                    answer = await ask(endpoint, history, TURN_ANSWER_TOKENS, session=session)
                # The space before the first word is the tokenizer's, and it puts it there again.
                history.append({"role": "assistant", "content": answer.text.strip()})
                answers.append(answer)
            await close_session(endpoint, session)
            return answers

        per_session = await asyncio.gather(*map(one, _deal(servers, self.sessions), texts))
        answers = [answer for mine in per_session for answer in mine]
        return Run(answers, [answer for mine in per_session for answer in mine[1:]])


@dataclass(frozen=True)
class LongPrompt:
    """A prompt of 4k tokens that comes while streams run.

    Attributes:
        running: How many streams.
    """

    running: int

    async def __call__(self, servers: Servers, prompts: Prompts) -> Run:
        """Run it."""
        texts = [prompts.first_message(PROMPT_TOKENS) for _ in range(self.running)]
        long = prompts.first_message(LONG_TOKENS)
        (endpoint,) = servers.endpoints
        under_way = _UnderWay(self.running)
        running = [
            asyncio.create_task(ask(endpoint, [_user(text)], _RUNNING_TOKENS, watch=under_way.watch(stream)))
            for stream, text in enumerate(texts)
        ]
        with _cancelled(running):
            await asyncio.wait(
                [asyncio.create_task(under_way.all.wait()), *running], return_when="FIRST_COMPLETED"
            )
            late = await ask(endpoint, [_user(long)], LONG_ANSWER_TOKENS)
            answers = await asyncio.gather(*running)
        return Run(answers, [late], Window(late.sent_at, late.times[0]))


@dataclass(frozen=True)
class Retrieval:
    """Questions about passages, one after another.

    Attributes:
        questions: How many.
        stream: Whether answers are streamed. Whole ones may be decoded with lookup in the prompt, by policy.
    """

    questions: int
    stream: bool

    async def __call__(self, servers: Servers, prompts: Prompts) -> Run:
        """Run it."""
        (endpoint,) = servers.endpoints
        texts = [prompts.retrieval() for _ in range(self.questions)]
        answers = [
            await ask(endpoint, [_user(text)], _RETRIEVAL_TOKENS, stream=self.stream) for text in texts
        ]
        return Run(answers, answers)


class _UnderWay:
    """Knows when all streams have begun.

    Attributes:
        all: Set then.
    """

    def __init__(self, streams: int) -> None:
        self.all = asyncio.Event()
        self._missing = set(range(streams))

    def watch(self, stream: int) -> Callable[[int], None]:
        """Return what is told of the pieces of a stream."""

        def watch(count: int) -> None:
            if count >= _UNDER_WAY:
                self._missing.discard(stream)
                if not self._missing:
                    self.all.set()

        return watch


@contextlib.contextmanager
def _cancelled(tasks: Sequence[asyncio.Task[Answer]]) -> Iterator[None]:
    """Leave no task behind when something goes wrong."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


def _deal(servers: Servers, count: int) -> list[Endpoint]:
    """Return an endpoint for each of `count` streams, the servers in turn."""
    return [servers.endpoints[number % len(servers.endpoints)] for number in range(count)]


def _user(text: str) -> Message:
    return {"role": "user", "content": text}

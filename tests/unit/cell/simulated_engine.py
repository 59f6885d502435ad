"""An engine that keeps the cell's protocol (inference.cell.engine_protocol) and computes nothing.

Tokens are words. A stream holds every token it has seen until it is closed, as a KV cache would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.core.errors import RefusedError
from appliance.core.pin import Manifest
from inference.engine.errors import ContextOverflow, EngineFailed, NoFreeStream, StreamBusy
from inference.engine.logprobs import Candidate, TokenLogprob
from inference.engine.sampling import Sampling

VOCABULARY = 1000
ANSWER = "the answer is forty two"


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: int
    finish: Literal["stop", "length"] | None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Erased:
    bytes: int
    verified: bool


@dataclass
class SimulatedEngine:
    """The knobs are public: a test turns them while the cell runs.

    Attributes:
        pace_s: Seconds per token.
        answer: What every answer says; None repeats the prompt's word count for ever.
        fail_after: Tokens after which the engine gives up.
        erase_verified: What `close_stream` claims.
        decoded: Number of calls of `generate` that produced something.
        held: Tokens by open stream.
    """

    context_tokens: int = 2048
    streams: int = 8
    vocabulary_size: int = VOCABULARY
    pace_s: float = 0.0
    answer: str | None = ANSWER
    fail_after: int | None = None
    erase_verified: bool = True
    decoded: int = 0
    closed: bool = False
    runtime_digest: str = "ab" * 32
    held: dict[int, list[int]] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    sampled: list[Sampling] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    offered: list[Any] = field(default_factory=list)
    finish: Literal["stop", "length"] = "stop"
    weights: bytes = b""
    threads: int = 0
    most_wait_s: float = 0.0
    waiting: int = 0

    def load(
        self, manifest: Manifest, weights_fd: int, *, threads: int, loop: asyncio.AbstractEventLoop
    ) -> SimulatedEngine:
        with open(weights_fd, "rb", closefd=False) as file:
            self.weights = file.read()
        self.context_tokens, self.streams = manifest.launch.context_tokens, manifest.launch.max_sessions
        self.threads = threads
        return self

    async def open_streams(self, count: int, wait_s: float) -> tuple[int, ...]:
        waited_until = asyncio.get_running_loop().time() + min(wait_s, self.most_wait_s)
        while len(free := [stream for stream in range(self.streams) if stream not in self.held]) < count:
            if asyncio.get_running_loop().time() >= waited_until:
                raise NoFreeStream
            self.waiting += 1
            try:
                await asyncio.sleep(0.005)
            finally:
                self.waiting -= 1
        for stream in free[:count]:
            self.held[stream] = []
        return tuple(free[:count])

    def prompt_tokens(self, messages: list[dict[str, Any]], tools: Sequence[Any] = ()) -> list[int]:
        self.offered = list(tools)
        if messages[0]["role"] == "assistant":
            raise RefusedError("the first message must not be the model's")
        self.seen.append(messages)
        words = [word for message in messages for word in message["content"].split()]
        return [len(word) for word in words] + [0] * len(messages)

    def opening_tokens(
        self, messages: list[dict[str, Any]], _tools: Sequence[Any], _prompt: list[int]
    ) -> int:
        return sum(len(message["content"].split()) for message in messages if message["role"] == "system")

    def text_tokens(self, text: str, *, add_special: bool) -> list[int]:
        words = text.split()
        if len(words) > 4 * self.context_tokens:
            raise ContextOverflow(len(words) // 4, self.context_tokens)
        return [1] * add_special + [len(word) for word in words]

    def text_of(self, tokens: list[int]) -> str:
        return " ".join("x" * token for token in tokens)

    async def generate(
        self,
        stream: int,
        prompt: list[int],
        sampling: Sampling,
        *,
        like: int | None = None,
        shared: int = 0,
    ) -> AsyncIterator[Piece]:
        self.shared.append(shared)
        assert like is None or like in self.held
        if stream in self.busy or stream not in self.held:
            raise StreamBusy("busy", field="stream")
        if len(prompt) + sampling.max_tokens > self.context_tokens:
            raise ContextOverflow(len(prompt), self.context_tokens)
        self.busy.add(stream)
        self.sampled.append(sampling)
        self.prompts.append(prompt)
        self.decoded += 1
        try:
            self.held[stream] = list(prompt)
            async for piece in self._pieces(stream, sampling):
                yield piece
        finally:
            self.busy.discard(stream)

    async def _pieces(self, stream: int, sampling: Sampling) -> AsyncIterator[Piece]:
        words = self.answer.split(" ") if self.answer is not None else None
        count = 0
        while words is None or count < len(words):
            await asyncio.sleep(self.pace_s)
            if self.fail_after is not None and count >= self.fail_after:
                raise EngineFailed("llama_decode returned -3")
            if count >= sampling.max_tokens:
                yield Piece("", 0, "length")
                return
            word = words[count] if words is not None else "again"
            self.held[stream].append(len(word))
            text = word if count == 0 else " " + word
            yield Piece(
                text, 1, None, () if sampling.logprobs is None else _logprobs(text, sampling.logprobs)
            )
            count += 1
        yield Piece("", 0, self.finish)

    async def close_stream(self, stream: int) -> Erased:
        if stream in self.busy:
            raise StreamBusy("busy", field="stream")
        await asyncio.sleep(0)
        return Erased(4 * len(self.held.pop(stream)), self.erase_verified)

    async def aclose(self) -> None:
        self.closed = True


def _logprobs(text: str, likeliest: int) -> tuple[TokenLogprob, ...]:
    """What every token of this engine is: half likely, and its alternatives are half characters."""
    chosen = Candidate(text, text.encode(), -0.5)
    others = tuple(Candidate("\ufffd", bytes([200 + rank]), -1.0 - rank) for rank in range(likeliest))
    return (TokenLogprob(chosen, others, offset=0),)

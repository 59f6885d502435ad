"""The engine as the rest of the cell sees it: asyncio outside, one thread behind it (`worker`) that owns the context."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from appliance.core.errors import ApplianceError, PinError, RefusedError
from appliance.core.pin import Manifest
from inference.engine.admission import Admission, Limits
from inference.engine.erase import Erased
from inference.engine.errors import (
    ContextOverflow,
    DeadlinePassed,
    Draining,
    EngineFailed,
    NoFreeStream,
    QueueFull,
    StreamBusy,
)
from inference.engine.pace import retry_after_s
from inference.engine.runner import Piece, Runner
from inference.engine.sampling import Sampling, verify_sampling
from inference.engine.scheduler import verify_fits
from inference.engine.template import ChatTemplate
from inference.engine.vocabulary import Vocabulary
from inference.engine.worker import Worker

__all__ = [
    "ContextOverflow",
    "DeadlinePassed",
    "Draining",
    "Engine",
    "EngineFailed",
    "Erased",
    "Limits",
    "NoFreeStream",
    "Piece",
    "QueueFull",
    "Sampling",
    "StreamBusy",
]

T = TypeVar("T")

_LIMITS = Limits()


@dataclass(eq=False)
class _Request:
    """One answer in progress. Only the event loop's thread touches it."""

    prompt_tokens: int
    max_tokens: int
    tokens: int = 0  # that came so far
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    pieces: list[Piece] = field(default_factory=list)
    failure: ApplianceError | None = None

    @property
    def complete(self) -> bool:
        """Whether it ended and its reader only has to take the last piece."""
        return bool(self.pieces) and self.pieces[-1].finish is not None

    def take(self) -> Piece:
        """Return all pieces that came since the last time as one: a slow reader gets fewer, longer ones."""
        pieces, self.pieces = self.pieces, []
        self.ready.clear()
        if len(pieces) == 1:
            return pieces[0]
        return Piece(
            "".join(piece.text for piece in pieces),
            sum(piece.tokens for piece in pieces),
            pieces[-1].finish,
            tuple(logprob for piece in pieces for logprob in piece.logprobs),
        )

    def fail(self, failure: ApplianceError) -> None:
        """End it with an error, and drop what came and was not taken yet."""
        self.pieces.clear()
        self.failure = failure
        self.ready.set()


class Engine:
    """One pinned model, loaded; its streams belong to one client.

    Attributes:
        runtime_digest: SHA-256 of the libraries that run the model.
        context_tokens: Context of one stream, in tokens.
        vocabulary_size: Tokens of the model's vocabulary; their ids begin at 0.
        streams: How many streams there are.
    """

    def __init__(
        self,
        manifest: Manifest,
        vocabulary: Vocabulary,
        runner: Runner,
        release: Callable[[], None],
        *,
        runtime_digest: str,
        loop: asyncio.AbstractEventLoop,
        limits: Limits = _LIMITS,
    ) -> None:
        self.runtime_digest = runtime_digest
        self.context_tokens = manifest.launch.context_tokens
        self._template = ChatTemplate(manifest.chat_template, bos=vocabulary.bos, eos=vocabulary.eos)
        if manifest.tool_calls is not None and not self._template.takes_tools:
            raise PinError("the chat template takes no tools", field="tool_calls")
        self._vocabulary = vocabulary
        self.vocabulary_size = len(vocabulary.pieces)
        self.streams = manifest.launch.max_sessions
        self._loop = loop
        self._admission = Admission(self.streams, limits, self._retry_after_s)
        self._requests: dict[int, _Request] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._worker: Worker[_Request] = Worker(runner, release, loop, self._deliver)

    @classmethod
    def load(
        cls,
        manifest: Manifest,
        weights_fd: int,
        *,
        threads: int,
        loop: asyncio.AbstractEventLoop,
        limits: Limits = _LIMITS,
    ) -> Engine:
        """Load a model and start the thread.

        Args:
            manifest: The pin.
            weights_fd: As `loading.load`.
            threads: Threads that compute.
            loop: Where answers are delivered.
            limits: Bounds of waiting for a stream.

        Raises:
            PinError, EngineFailed: As `loading.load`.
        """
        from inference.engine.loading import load

        # On a thread that ends before the worker begins. OpenMP keeps the helpers of every thread that ever computed, and
        # once they are more than the cores it no longer spins at its barriers: a step took 17 ms instead of 8.
        with ThreadPoolExecutor(1) as apart:
            loaded = apart.submit(load, manifest, weights_fd, threads=threads).result()
        return cls(
            manifest,
            loaded.vocabulary,
            loaded.runner,
            loaded.release,
            runtime_digest=loaded.runtime_digest,
            loop=loop,
            limits=limits,
        )

    async def open_stream(self, wait_s: float = 0.0) -> int:
        """Claim one stream for a session, as `open_streams`."""
        (stream,) = await self.open_streams(1, wait_s)
        return stream

    async def open_streams(self, count: int, wait_s: float = 0.0) -> tuple[int, ...]:
        """Claim streams for a session, all together. Whoever waits gets them in the order of asking.

        Args:
            count: How many, at least 1.
            wait_s: Most seconds to wait for them, cut to the engine's limit; 0 refuses at once.

        Raises:
            NoFreeStream: If too many are taken, and still were when the wait was over.
            QueueFull: If as many wait already as may.
            Draining: If no more work is taken.
            EngineFailed: If the engine has failed.
        """
        await self._admission.claim(count, wait_s)
        opening = [self._begin(self._open()) for _ in range(count)]
        try:
            return tuple([await asyncio.shield(stream) for stream in opening])
        except (asyncio.CancelledError, ApplianceError):
            for stream in opening:
                self._begin(self._give_back(stream))
            raise

    def prompt_tokens(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Render the pin's chat template and tokenise it. What clients wrote never becomes a control token.

        Args:
            messages: Each with `role` (one of `template.ROLES`) and `content`; see `ChatTemplate.render`.
            tools: As `ChatTemplate.render`.

        Raises:
            RefusedError: If the template does not take this conversation.
            ContextOverflow: If it is too long to fit, whatever its tokens are.
        """
        fragments = self._template.render(messages, tools)
        self._verify_length(sum(len(fragment.text) for fragment in fragments if not fragment.trusted))
        return self._vocabulary.prompt_tokens(fragments)

    def opening_tokens(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], prompt: Sequence[int]
    ) -> int:
        """Return how many tokens of a prompt come before what was said: the system's messages and the tools.

        Args:
            messages, tools: As `prompt_tokens`.
            prompt: What that returned.

        Raises:
            RefusedError: As `prompt_tokens`.
        """
        fragments = [fragment for fragment in self._template.render(messages, tools) if fragment.opening]
        opening = self._vocabulary.prompt_tokens(fragments)
        pairs = zip(opening, prompt, strict=False)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), len(opening))

    def text_tokens(self, text: str, *, add_special: bool = True) -> list[int]:
        """Tokenise plain text, as `Vocabulary.text_tokens`.

        Raises:
            ContextOverflow: If it is too long to fit, whatever its tokens are.
        """
        self._verify_length(len(text))
        return self._vocabulary.text_tokens(text, add_special=add_special)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return what tokens of the vocabulary say, as `Vocabulary.text_of`."""
        return self._vocabulary.text_of(tokens)

    def generate(
        self,
        stream: int,
        prompt: list[int],
        sampling: Sampling,
        *,
        like: int | None = None,
        shared: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncIterator[Piece]:
        """Answer a prompt on a stream.

        What the stream's KV cache holds of an earlier turn is kept as far as the prompt begins with it. Closing the
        iterator or cancelling its reader ends the answer within a step.

        Args:
            stream: An open one.
            prompt: The whole conversation in tokens.
            sampling: How to choose tokens, and how many at most.
            like: Another stream of the same session, whose answer to the same prompt was begun before; the prompt is then
                read once for both.
            shared: Tokens at the prompt's beginning that may be copied from another session's stream that holds them.
            deadline_s: Seconds from the first piece asked for in which the answer must be complete; None for no bound.

        Raises:
            RefusedError: If a parameter is out of bounds. This and the next two at once, before anything is decoded.
            ContextOverflow: If prompt and max_tokens do not fit the context.
            StreamBusy: If the stream has an answer in progress or is not open.
            Draining: If no more work is taken; from the iterator, if the drain's time is over before the answer is.
            DeadlinePassed: From the iterator. What was decoded stays in the stream, as after any end.
            EngineFailed: From the iterator, if llama.cpp fails.
        """
        self._admission.verify_open()
        if deadline_s is not None and not 0 < deadline_s < math.inf:
            raise RefusedError("must be above 0", field="deadline_s")
        verify_sampling(sampling, self.vocabulary_size)
        verify_fits(len(prompt), sampling.max_tokens, self.context_tokens)
        if stream in self._requests:
            raise StreamBusy("the stream has an answer in progress")
        return self._answer(stream, prompt, sampling, like=like, shared=shared, deadline_s=deadline_s)

    async def close_stream(self, stream: int) -> Erased:
        """End what runs on a stream, overwrite everything it left, and give it back.

        Raises:
            StreamBusy: If it is not open.
            EngineFailed: If llama.cpp refuses; nothing is known about what was overwritten then.
        """
        request = self._requests.get(stream)
        if request is not None:
            self._forget(stream)
            request.fail(StreamBusy("the stream was closed"))
        return await asyncio.shield(self._begin(self._close(stream)))

    async def drain(self, deadline_s: float) -> None:
        """Take no more work, and let what runs end: by itself within `deadline_s` seconds, or else by an error.

        Who waits for a stream is refused at once. Streams stay open until they are closed.
        """
        self._admission.refuse(Draining)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._quiet.wait()
        for stream, request in tuple(self._requests.items()):
            if not request.complete:
                self._break_off(stream, Draining())

    async def aclose(self) -> None:
        """Erase every stream, end the thread, free context and model. The engine is of no use afterwards."""
        closing = partial(EngineFailed, "the engine is closing")
        self._admission.refuse(closing)
        for stream in tuple(self._requests):
            self._break_off(stream, closing())
        await self._worker.aclose()

    def _verify_length(self, characters: int) -> None:
        # Tokenising a megabyte takes longer than the event loop may be away, so what cannot fit is not tokenised.
        at_least = characters // self._vocabulary.longest_piece
        if at_least > self.context_tokens:
            raise ContextOverflow(at_least, self.context_tokens)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something to its end, whatever becomes of the caller."""
        task = asyncio.create_task(work)
        self._tasks.add(task)  # asyncio itself holds tasks by weak references
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self) -> int:
        try:
            return await self._worker.open()
        except ApplianceError:
            self._admission.release()
            raise

    async def _close(self, stream: int) -> Erased:
        erased = await self._worker.close(stream)
        if erased.verified:
            self._admission.release()
        return erased

    async def _give_back(self, opening: asyncio.Future[int]) -> None:
        """Close a stream that was opened for nobody."""
        # If either fails, the engine has failed or is closed, and says so to everybody.
        with contextlib.suppress(ApplianceError):
            await self.close_stream(await opening)

    def _retry_after_s(self, ahead: int) -> int:
        requests = [request for request in self._requests.values() if not request.complete]
        return retry_after_s(
            self._worker.speed,
            prompt_tokens=sum(request.prompt_tokens for request in requests if not request.tokens),
            answers=[request.max_tokens - request.tokens for request in requests],
            ahead=ahead,
        )

    async def _answer(
        self,
        stream: int,
        prompt: list[int],
        sampling: Sampling,
        *,
        like: int | None,
        shared: int,
        deadline_s: float | None,
    ) -> AsyncIterator[Piece]:
        self._admission.verify_open()
        if stream in self._requests:
            raise StreamBusy("the stream has an answer in progress")
        request = self._requests[stream] = _Request(len(prompt), sampling.max_tokens)
        self._quiet.clear()
        timer = None
        if deadline_s is not None:
            timer = self._loop.call_later(deadline_s, self._expire, stream, request)
        try:
            await self._worker.start(stream, prompt, sampling, request, like=like, shared=shared)
            while True:
                await request.ready.wait()
                if request.failure is not None:
                    raise request.failure
                piece = request.take()
                if piece.finish is not None:
                    # Before the reader sees the end, so that it can start the stream's next turn at once.
                    self._forget(stream)
                yield piece
                if piece.finish is not None:
                    return
        finally:
            if timer is not None:
                timer.cancel()
            if self._requests.get(stream) is request:
                self._forget(stream)
                # Commands are taken in order, so whoever uses the stream next comes after this.
                self._worker.cancel(stream)

    def _expire(self, stream: int, request: _Request) -> None:
        """End an answer whose time is over, unless it has ended: a slow reader keeps what is complete."""
        if self._requests.get(stream) is request and not request.complete:
            self._break_off(stream, DeadlinePassed(self._retry_after_s(0)))

    def _break_off(self, stream: int, failure: ApplianceError) -> None:
        """End an answer now, and its reader with an error."""
        request = self._requests[stream]
        self._forget(stream)
        self._worker.cancel(stream)
        request.fail(failure)

    def _forget(self, stream: int) -> None:
        del self._requests[stream]
        if not self._requests:
            self._quiet.set()

    def _deliver(self, pieces: list[tuple[_Request, Piece]], failure: EngineFailed | None) -> None:
        """Hand out what a step produced. Runs on the event loop."""
        for request, piece in pieces:
            request.tokens += piece.tokens
            request.pieces.append(piece)
            request.ready.set()
        if failure is not None:
            self._admission.refuse(partial(EngineFailed, failure.message, hint=failure.hint))
            for request in self._requests.values():
                request.fail(failure)

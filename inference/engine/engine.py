"""The engine as the rest of the cell sees it: asyncio outside, one thread behind it (`worker`) that owns the context."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.core.errors import ApplianceError, PinError
from appliance.core.pin import Launch, Manifest
from inference.engine.erase import Erased, prove
from inference.engine.errors import ContextOverflow, EngineFailed, NoFreeStream, StreamBusy
from inference.engine.runner import Piece, Runner
from inference.engine.sampling import Sampling, verify_sampling
from inference.engine.scheduler import Scheduler, verify_fits
from inference.engine.template import ChatTemplate
from inference.engine.vocabulary import Vocabulary
from inference.engine.worker import Worker

__all__ = [
    "ContextOverflow",
    "Engine",
    "EngineFailed",
    "Erased",
    "NoFreeStream",
    "Piece",
    "Sampling",
    "StreamBusy",
]

_CHUNK_TOKENS = 128  # prompt tokens between two tokens of somebody else's answer


@dataclass(eq=False)
class _Request:
    """One answer in progress. Only the event loop's thread touches it."""

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    pieces: list[Piece] = field(default_factory=list)
    failure: ApplianceError | None = None

    def take(self) -> Piece:
        """Return all pieces that came since the last time as one: a slow reader gets fewer, longer ones."""
        pieces, self.pieces = self.pieces, []
        self.ready.clear()
        return Piece("".join(p.text for p in pieces), sum(p.tokens for p in pieces), pieces[-1].finish)


class Engine:
    """One pinned model, loaded; its streams belong to one client.

    Attributes:
        runtime_digest: SHA-256 of the libraries that run the model.
        context_tokens: Context of one stream, in tokens.
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
    ) -> None:
        self.runtime_digest = runtime_digest
        self.context_tokens = manifest.launch.context_tokens
        self._template = ChatTemplate(manifest.chat_template, bos=vocabulary.bos, eos=vocabulary.eos)
        self._vocabulary = vocabulary
        self._requests: dict[int, _Request] = {}
        self._worker: Worker[_Request] = Worker(runner, release, loop, self._deliver)

    @classmethod
    def load(
        cls, manifest: Manifest, weights_fd: int, *, threads: int, loop: asyncio.AbstractEventLoop
    ) -> Engine:
        """Load a model; prove that it can be erased, which warms it up as well; start the thread.

        Args:
            manifest: The pin.
            weights_fd: Descriptor whose bytes were verified against `manifest.files[0]`; not needed after this call.
            threads: Threads that compute.
            loop: Where answers are delivered.

        Raises:
            PinError: If the pin names another runtime, or llama.cpp does not load the weights.
            EngineFailed: If there is not enough memory, or the erase self-test fails: the cell must not serve then.
        """
        from inference.engine import llama

        if manifest.runtime.llama_cpp_python != llama.VERSION:
            raise PinError(
                "another version of llama-cpp-python is installed", field="runtime.llama_cpp_python"
            )
        launch = manifest.launch
        with contextlib.ExitStack() as stack:
            model = llama.Model(weights_fd)
            stack.callback(model.close)
            context = llama.Context(
                model,
                streams=launch.max_sessions,
                stream_tokens=launch.context_tokens,
                batch_tokens=launch.batch_tokens,
                threads=threads,
            )
            stack.callback(context.close)
            layout = prove(context)
            vocabulary = Vocabulary(model)
            runner = Runner(context, layout, vocabulary, _scheduler(launch), manifest.stop)
            digest = llama.runtime_digest()
            release = stack.pop_all().close
            return cls(manifest, vocabulary, runner, release, runtime_digest=digest, loop=loop)

    async def open_stream(self) -> int:
        """Claim a stream for a session.

        Raises:
            NoFreeStream: If all are taken.
            EngineFailed: If the engine has failed.
        """
        return await self._worker.open()

    def prompt_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Render the pin's chat template and tokenise it. What clients wrote never becomes a control token.

        Args:
            messages: Each with `role` (one of `template.ROLES`) and `content`.

        Raises:
            RefusedError: If the template does not take this conversation.
            ContextOverflow: If it is too long to fit, whatever its tokens are.
        """
        fragments = self._template.render(messages)
        # Tokenising a megabyte takes longer than the event loop may be away, so what cannot fit is not tokenised.
        characters = sum(len(fragment.text) for fragment in fragments if not fragment.trusted)
        at_least = characters // self._vocabulary.longest_piece
        if at_least > self.context_tokens:
            raise ContextOverflow(at_least, self.context_tokens)
        return self._vocabulary.prompt_tokens(fragments)

    def generate(self, stream: int, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """Answer a prompt on a stream.

        What the stream's KV cache holds of an earlier turn is kept as far as the prompt begins with it. Closing the
        iterator or cancelling its reader ends the answer within a step.

        Raises:
            RefusedError: If a parameter is out of bounds. This and the next two at once, before anything is decoded.
            ContextOverflow: If prompt and max_tokens do not fit the context.
            StreamBusy: If the stream has an answer in progress or is not open.
            EngineFailed: From the iterator, if llama.cpp fails.
        """
        verify_sampling(sampling)
        verify_fits(len(prompt), sampling.max_tokens, self.context_tokens)
        if stream in self._requests:
            raise StreamBusy("the stream has an answer in progress")
        return self._answer(stream, prompt, sampling)

    async def close_stream(self, stream: int) -> Erased:
        """End what runs on a stream, overwrite everything it left, and give it back.

        Raises:
            StreamBusy: If it is not open.
            EngineFailed: If llama.cpp refuses; nothing is known about what was overwritten then.
        """
        request = self._requests.pop(stream, None)
        if request is not None:
            request.failure = StreamBusy("the stream was closed")
            request.ready.set()
        return await self._worker.close(stream)

    async def aclose(self) -> None:
        """Erase every stream, end the thread, free context and model. The engine is of no use afterwards."""
        for stream, request in list(self._requests.items()):
            request.failure = EngineFailed("the engine is closing")
            request.ready.set()
            del self._requests[stream]
        await self._worker.aclose()

    async def _answer(self, stream: int, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        if stream in self._requests:
            raise StreamBusy("the stream has an answer in progress")
        request = self._requests[stream] = _Request()
        try:
            await self._worker.start(stream, prompt, sampling, request)
            while True:
                await request.ready.wait()
                if request.failure is not None:
                    raise request.failure
                piece = request.take()
                if piece.finish is not None:
                    # Before the reader sees the end, so that it can start the stream's next turn at once.
                    del self._requests[stream]
                yield piece
                if piece.finish is not None:
                    return
        finally:
            if self._requests.get(stream) is request:
                del self._requests[stream]
                # Commands are taken in order, so whoever uses the stream next comes after this.
                self._worker.cancel(stream)

    def _deliver(self, pieces: list[tuple[_Request, Piece]], failure: EngineFailed | None) -> None:
        """Hand out what a step produced. Runs on the event loop."""
        for request, piece in pieces:
            request.pieces.append(piece)
            request.ready.set()
        if failure is not None:
            for request in self._requests.values():
                request.failure = failure
                request.ready.set()


def _scheduler(launch: Launch) -> Scheduler:
    return Scheduler(
        streams=launch.max_sessions,
        context_tokens=launch.context_tokens,
        chunk_tokens=_CHUNK_TOKENS,
        batch_tokens=launch.batch_tokens,
    )

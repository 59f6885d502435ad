"""What the cell needs of an engine. `inference.engine.engine.Engine` is one; the tests have a simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from appliance.core.pin import Manifest
from inference.engine.sampling import Sampling

if TYPE_CHECKING:
    from inference.engine.engine import Erased, Piece


class CellEngine(Protocol):
    """A loaded model and its KV streams.

    Attributes:
        runtime_digest: SHA-256 of the libraries that run the model.
        context_tokens: Context of one session, in tokens.
        vocabulary_size: Tokens of the model's vocabulary.
        streams: KV streams.
    """

    @property
    def runtime_digest(self) -> str: ...

    @property
    def context_tokens(self) -> int: ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def streams(self) -> int: ...

    async def open_streams(self, count: int, wait_s: float) -> tuple[int, ...]:
        """Claim so many streams or none, waiting in line. Raises NoFreeStream, QueueFull, Draining."""

    def prompt_tokens(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Render and tokenise. Raises RefusedError for messages that the template does not take."""

    def opening_tokens(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], prompt: Sequence[int]
    ) -> int:
        """Return how many tokens of a prompt the system's messages and the tools make."""

    def text_tokens(self, text: str, *, add_special: bool) -> list[int]:
        """Tokenise plain text. Raises ContextOverflow."""

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return what tokens say."""

    def generate(
        self,
        stream: int,
        prompt: list[int],
        sampling: Sampling,
        *,
        like: int | None = None,
        shared: int = 0,
    ) -> AsyncIterator[Piece]:
        """Decode. Raises ContextOverflow, StreamBusy, EngineFailed.

        Args:
            like: A stream that was given the same prompt before.
            shared: Tokens at the prompt's beginning that may be copied from another session.
        """

    async def close_stream(self, stream: int) -> Erased:
        """Overwrite what the stream held and give it back."""

    async def aclose(self) -> None:
        """Stop, and free the model."""


class EngineLoader(Protocol):
    """How an engine comes to be: `Engine.load`."""

    def __call__(
        self, manifest: Manifest, weights_fd: int, *, threads: int, loop: asyncio.AbstractEventLoop
    ) -> CellEngine: ...

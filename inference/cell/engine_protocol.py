"""What the cell needs of an engine. `inference.engine.engine.Engine` is one; the tests have a simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from appliance.core.pin import Manifest
from inference.engine.sampling import Sampling

if TYPE_CHECKING:
    from inference.engine.engine import Erased, Piece


class CellEngine(Protocol):
    """A loaded model with one KV stream per session.

    Attributes:
        runtime_digest: SHA-256 of the libraries that run the model.
        context_tokens: Context of one session, in tokens.
    """

    @property
    def runtime_digest(self) -> str: ...

    @property
    def context_tokens(self) -> int: ...

    async def open_stream(self) -> int:
        """Claim a stream. Raises NoFreeStream."""

    def prompt_tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Render and tokenise. Raises RefusedError for messages that the template does not take."""

    def generate(self, stream: int, prompt: list[int], sampling: Sampling) -> AsyncIterator[Piece]:
        """Decode. Raises ContextOverflow, StreamBusy, EngineFailed."""

    async def close_stream(self, stream: int) -> Erased:
        """Overwrite what the stream held and give it back."""

    async def aclose(self) -> None:
        """Stop, and free the model."""


class EngineLoader(Protocol):
    """How an engine comes to be: `Engine.load`."""

    def __call__(
        self, manifest: Manifest, weights_fd: int, *, threads: int, loop: asyncio.AbstractEventLoop
    ) -> CellEngine: ...

"""One request on one session: decode, and what happens to the session and its receipt afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from appliance.core.errors import ApplianceError, RefusedError
from appliance.core.receipt import End, SignedReceipt
from inference.cell.cell import Cell
from inference.cell.completion import Usage
from inference.cell.errors import Refusal
from inference.cell.prompt import Prompt
from inference.cell.sessions import Session
from inference.cell.work import Work
from inference.engine.errors import ContextOverflow, StreamBusy, TryLater
from inference.engine.sampling import Sampling

if TYPE_CHECKING:
    from inference.engine.engine import Piece

Emit = Callable[[int, "Piece"], Awaitable[None]]

_STOPPED: Final = {
    End.REVOKED: "invalid_api_key",
    End.DRAINED: "draining",
    End.EXPIRED: "session_ended",
    End.DELETED: "session_ended",
    End.FAILED: "engine_failed",
}


def stopped_code(cell: Cell, reason: End) -> str:
    """Return what a client is told whose request was stopped for this reason."""
    if reason is End.DRAINED and cell.notary.lost.is_set():
        return "notary_unavailable"
    return _STOPPED.get(reason, "internal")


def _refused_code(error: RefusedError) -> str:
    if isinstance(error, ContextOverflow):
        return "context_length_exceeded"
    return "session_busy" if isinstance(error, StreamBusy) else "invalid_value"


def _later_code(error: TryLater) -> str:
    return error.code if error.code in ("draining", "deadline_passed") else "no_stream"


class Turn:
    """One request on one session.

    Args:
        cell: The cell.
        session: A kept one, or one that lives for this request.
        work: The request.
        prompt: The whole conversation.
        samplings: How to choose tokens, for each choice; the session has a stream for each.

    Attributes:
        completion_tokens: Tokens decoded so far, of all choices.
    """

    def __init__(
        self, cell: Cell, session: Session, work: Work, prompt: Prompt, samplings: Sequence[Sampling]
    ) -> None:
        self._cell = cell
        self.session = session
        self._work = work
        self._prompt = prompt
        self._samplings = samplings
        self.completion_tokens = 0

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        return Usage(len(self._prompt.tokens), self.completion_tokens)

    async def decode(self, emit: Emit) -> list[str]:
        """Decode the answer and give each piece of it to `emit`, with the number of its choice.

        Returns:
            The finish reason of each choice.

        Raises:
            Refusal: If the session cannot take the request, the engine gives up, or the request was stopped. The
                session has then been dealt with: a one-shot session and one whose engine failed are ended.
            CancelledError: If the client went away.
        """
        try:
            return await self._decode(emit)
        except asyncio.CancelledError:
            reason = self._work.stopped or End.DISCONNECTED
            await self._give_up(reason)
            if reason is End.DISCONNECTED:
                raise
            raise Refusal(stopped_code(self._cell, reason), receipt=self.session.receipt) from None
        except Refusal:
            await self._give_up(End.FAILED)
            raise
        except TryLater as error:
            await self._give_up(End.FAILED)
            raise Refusal(
                _later_code(error), receipt=self.session.receipt, retry_after_s=error.retry_after_s
            ) from None
        except RefusedError as error:
            await self._give_up(End.FAILED)
            raise Refusal(_refused_code(error), receipt=self.session.receipt) from None
        except ApplianceError:
            self._cell.life.engine_failed = True  # it serves nothing more; the keeper ends the cell
            await self._cell.sessions.end(self.session, End.FAILED)
            raise Refusal("engine_failed", receipt=self.session.receipt) from None
        except Exception:  # noqa: BLE001 - a fault of ours must not leave a session without its end
            await self._cell.sessions.end(self.session, End.FAILED)
            raise Refusal("internal", receipt=self.session.receipt) from None

    async def conclude(self) -> SignedReceipt | None:
        """The answer is complete: end a one-shot session and return its receipt; None for a kept session.

        Raises:
            Refusal: `notary_unavailable`; then the last byte of the answer must not be sent.
        """
        self._work.seal()
        if self.session.kept:
            return None
        signed = await self._cell.sessions.end(self.session, End.ONE_SHOT)
        if signed is None:
            raise Refusal("notary_unavailable", receipt=self.session.receipt)
        return signed

    async def ended(self) -> SignedReceipt | None:
        """Return the receipt of a one-shot session whose request was broken off, once it is durable."""
        ending = self.session.ending
        return None if ending is None or self.session.kept else await asyncio.shield(ending)

    async def _decode(self, emit: Emit) -> list[str]:
        session, limits = self.session, self._cell.policy.current.limits
        with session.turn(self._work, idle_s=limits.session_idle_s):
            session.prompt_tokens += len(self._prompt.tokens)
            self._work.used += len(self._prompt.tokens)
            if len(self._samplings) == 1:
                return [await self._choose(0, emit)]
            return await self._choose_all(emit)

    async def _choose_all(self, emit: Emit) -> list[str]:
        """Decode every choice side by side. If one fails or all are stopped, none is left running."""
        choices = [asyncio.create_task(self._choose(i, emit)) for i in range(len(self._samplings))]
        try:
            return await asyncio.gather(*choices)
        finally:
            for choice in choices:
                choice.cancel()
            await asyncio.wait(choices)

    async def _choose(self, index: int, emit: Emit) -> str:
        session = self.session
        pieces = self._cell.engine.generate(
            session.streams[index],
            self._prompt.tokens,
            self._samplings[index],
            like=session.streams[0] if index else None,
            shared=self._prompt.shared,
        )
        try:
            async for piece in pieces:
                session.completion_tokens += piece.tokens
                self.completion_tokens += piece.tokens
                self._work.used += piece.tokens
                if piece.text or piece.logprobs:
                    await emit(index, piece)
                if piece.finish is not None:
                    return piece.finish
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        raise Refusal("engine_failed", receipt=session.receipt)

    async def _give_up(self, reason: End) -> None:
        if not self.session.kept:
            await self._cell.sessions.end(self.session, reason)

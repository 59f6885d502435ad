"""The cell's clock: ten times a second, and whenever something ended, it looks whether anything has to end now."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from appliance.core.receipt import End
from inference.cell.admission import Admission
from inference.cell.cell import Cell
from inference.cell.exits import Exit
from inference.cell.policy_file import ClientRevokedError, Credentials

TICK_S: Final = 0.1
DRAIN_S: Final = 10.0  # for answers in progress to end by themselves when the process was asked to stop
STOP_WITHIN_S: Final = (
    2.0  # for all that is left; the launcher kills 15 s after SIGTERM (docs/spec/node-protocols.md)
)
SETTLE_S: Final = 0.02  # for the request on a connection that was accepted just before the cell closed
FIRST_REQUEST_S: Final = 5.0  # a cell was started for a request; it waits at least this long for it


class Keeper:
    """Watches the policy, the notary, deadlines and idleness of one cell.

    Args:
        cell: The cell.
        terminate: Set when the process was asked to stop.
        stop_accepting: Leaves new connections to whoever listens next.
    """

    def __init__(self, cell: Cell, terminate: asyncio.Event, stop_accepting: Callable[[], None]) -> None:
        self._cell = cell
        self._terminate = terminate
        self._stop_accepting = stop_accepting
        self._settled_at = 0.0
        self._drained_at: float | None = None  # when a drain ends at the latest

    async def run(self) -> Exit:
        """Return when the cell has to end, with every session ended or, if it is idle, none open."""
        while (verdict := await self._look()) is None:
            self._cell.life.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S if self._cell.life.closing else TICK_S):
                    await self._cell.life.changed.wait()
        return verdict

    async def _look(self) -> Exit | None:
        if (stop := self._reason_to_stop()) is not None:
            reason, verdict = stop
            await self._stop(reason)
            return verdict
        now = time.monotonic()
        if self._terminate.is_set() and self._is_drained(now):
            await self._stop(End.DRAINED)
            return Exit.DONE
        for session in self._cell.sessions:
            if session.is_expired(now):
                self._cell.sessions.start_end(session, End.EXPIRED)
        return Exit.DONE if self._is_over(now) else None

    def _is_drained(self, now: float) -> bool:
        """Whether every answer in progress has ended, or has had its time. Nothing new is taken from the first call on."""
        if self._drained_at is None:
            self._drained_at = now + DRAIN_S
            self._stop_accepting()
            self._cell.life.drain()
        return not self._cell.life.running or now >= self._drained_at

    def _is_over(self, now: float) -> bool:
        """Whether an idle cell has nothing left to do.

        It first leaves new connections to its successor, and then answers what came in on those it had accepted.
        """
        cell = self._cell
        if not cell.life.closing and self._is_idle(now):
            self._stop_accepting()
            cell.life.closing = True
            self._settled_at = now + SETTLE_S
        return (
            cell.life.closing and now >= self._settled_at and not cell.life.running and not len(cell.sessions)
        )

    def _reason_to_stop(self) -> tuple[End, Exit] | None:
        cell = self._cell
        try:
            self._follow_policy()
        except ClientRevokedError as gone:
            return (End.EXPIRED if gone.expired else End.REVOKED), Exit.DONE
        causes = (
            (cell.life.engine_failed, End.FAILED, Exit.ENGINE_FAILED),
            (cell.sessions.untrusted, End.DRAINED, Exit.ERASE_FAILED),
            (cell.notary.lost.is_set(), End.DRAINED, Exit.NOTARY_LOST),
            (not self._is_pinned(), End.DRAINED, Exit.DONE),
        )
        return next(((end, verdict) for holds, end, verdict in causes if holds), None)

    def _follow_policy(self) -> None:
        # First whose time is over: when the agent takes them out of the policy, their receipts already say why.
        self._cut_off(self._cell.policy.ended(), End.EXPIRED)
        gone = self._cell.policy.refresh()
        if gone is None:
            return
        self._cell.admission = Admission(self._cell.policy.current)
        self._cell.rates.follow(self._cell.policy.current.limits)
        self._cut_off(gone, End.REVOKED)

    def _cut_off(self, credentials: Credentials, reason: End) -> None:
        """Stop the requests of devices and end the sessions that they opened."""
        if not credentials:
            return
        self._cell.life.stop_devices(credentials, reason)
        for session in self._cell.sessions:
            if session.device.credential in credentials:
                self._cell.sessions.start_end(session, reason)

    def _is_pinned(self) -> bool:
        """Whether the model is still the one that a cell started now would load."""
        models = self._cell.policy.current.models
        return bool(models) and models[0].pin_id == self._cell.model.pin

    def _is_idle(self, now: float) -> bool:
        """Whether text that came in has been here long enough after the last session's end.

        Requests without content do not prolong that: polling a list of models must not keep old text alive.
        """
        cell = self._cell
        if cell.life.running or len(cell.sessions):
            return False
        idle_s = cell.policy.current.limits.cell_idle_s
        if cell.life.last_content_at is None and cell.sessions.last_end is None:
            return now >= cell.life.last_request_at + max(idle_s, FIRST_REQUEST_S)
        return now >= max(cell.life.last_content_at or 0.0, cell.sessions.last_end or 0.0) + idle_s

    async def _await_ends(self, reason: End) -> None:
        life = self._cell.life
        await self._cell.sessions.end_all(reason)
        while life.running:
            life.changed.clear()
            await life.changed.wait()
        await self._cell.sessions.end_all(reason)  # what was opening while its request was stopped

    async def _stop(self, reason: End) -> None:
        """Stop every request, end every session, and wait for it within bounds; what is left dies with the process."""
        self._stop_accepting()
        self._cell.life.stop_all(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._await_ends(reason)

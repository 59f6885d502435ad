"""Group commit: what arrives while an fsync runs shares the next one.

One task builds records in order on a stage, so a chain never forks; the write and the fsync happen in a thread, so
that the event loop goes on reading requests meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.budget import Allowance, Asks
from appliance.core.errors import ApplianceError
from appliance.core.receipt import Draft, ReceiptSigner
from inference.notary.archive import Archive
from inference.notary.budget import Budget, day_of, grant
from inference.notary.ledger import Stage
from inference.notary.records import OpenRecord, PlaceRecord, receipt_payload

_GROUP = 256  # records that share one fsync at most; bounds how long one group is built


@dataclass(frozen=True)
class _Built:
    """A payload for the journal; of a receipt also its id and the signed receipt, of a session that opens what it was granted."""

    payload: bytes
    receipt: str = ""
    signed: bytes = b""
    granted: Allowance | None = None


@dataclass(frozen=True)
class _Wish:
    build: Callable[[Stage], _Built]
    done: asyncio.Future[_Built]


class Committer:
    """Writes to the archive, one group after the other."""

    def __init__(self, archive: Archive, key: Ed25519PrivateKey, clock: Callable[[], str]) -> None:
        """Start; `clock` gives the wall clock as a timestamp's text."""
        self._archive = archive
        self._signer = ReceiptSigner(key)
        self._clock = clock
        self._wishes: list[_Wish] = []
        self._arrived = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def open(self, record: OpenRecord, budget: Budget, asks: Asks | None) -> Allowance | None:
        """Make an open record durable; return what its session was granted, None if its client has no budget.

        Raises:
            QuotaError: If the client's budget is used up.
            JournalFullError: If it might leave no room to end the sessions that are open.
            JournalUnavailableError: If it cannot be written.
        """

        def build(stage: Stage) -> _Built:
            self._archive.verify_room(len(stage.opened))
            granted = grant(asks, budget, stage.spent_by(record.client).on(day_of(record.opened_at)))
            opening = record if granted is None else record.model_copy(update={"granted": granted})
            stage.open(opening)
            return _Built(opening.canonical_bytes(), granted=granted)

        return (await self._commit(build)).granted

    async def close(self, client: str, receipt: str, draft: Draft) -> bytes:
        """End a session; return the canonical bytes of its signed receipt once that is durable.

        Raises:
            NotOpenError: If no session of this client is open under this id.
            JournalUnavailableError: If it cannot be written; the session is then still open.
        """

        def build(stage: Stage) -> _Built:
            signed = self._signer.sign(stage.close(client, receipt, draft, self._clock()))
            return _Built(receipt_payload(signed), receipt, signed)

        return (await self._commit(build)).signed

    async def place(self, records: Sequence[PlaceRecord]) -> None:
        """Make durable where in the log receipts are. Raises JournalUnavailableError."""
        held = [record for record in records if self._archive.holds(record.receipt)]
        await asyncio.gather(*(self._commit(partial(_as_it_is, record)) for record in held))
        self._archive.place(records)

    async def _commit(self, build: Callable[[Stage], _Built]) -> _Built:
        wish = _Wish(build, asyncio.get_running_loop().create_future())
        self._wishes.append(wish)
        self._arrived.set()
        return await wish.done

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            group, self._wishes = self._wishes[:_GROUP], self._wishes[_GROUP:]
            if not self._wishes:
                self._arrived.clear()
            await self._write(group)

    async def _write(self, group: list[_Wish]) -> None:
        self._archive.drop_admitted()
        stage = Stage(self._archive.ledger)
        built: list[tuple[_Wish, _Built]] = []
        for wish in group:
            try:
                built.append((wish, wish.build(stage)))
            except ApplianceError as error:
                _settle(wish, error)
        if not built:
            return
        payloads = [made.payload for _, made in built]
        try:
            offsets = await asyncio.to_thread(self._archive.append, payloads)
        except ApplianceError as error:
            for wish, _ in built:
                _settle(wish, error)
            return
        stage.commit()
        for (wish, made), offset in zip(built, offsets, strict=True):
            if made.receipt:
                self._archive.note(made.receipt, offset)
            _settle(wish, made)

    async def aclose(self) -> None:
        """Stop; call it when nobody waits for a commit any more."""
        self.task.cancel()
        await asyncio.wait([self.task])


def _as_it_is(record: PlaceRecord, _stage: Stage) -> _Built:
    return _Built(record.canonical_bytes())


def _settle(wish: _Wish, outcome: _Built | ApplianceError) -> None:
    if wish.done.done():
        return  # whoever asked was cancelled; what was written stays written
    if isinstance(outcome, ApplianceError):
        wish.done.set_exception(outcome)
    else:
        wish.done.set_result(outcome)

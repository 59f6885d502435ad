"""Group commit: what arrives while an fsync runs shares the next one.

One task builds records in order on a stage, so a chain never forks; the write and the fsync happen in a thread, so
that the event loop goes on reading requests meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import ApplianceError
from appliance.core.receipt import Draft, SignedReceipt, sign_receipt
from inference.notary.archive import Archive
from inference.notary.ledger import Stage
from inference.notary.records import OpenRecord, PlaceRecord, ReceiptRecord

_GROUP = 256  # records that share one fsync at most; bounds how long one group is built


_Record = OpenRecord | ReceiptRecord | PlaceRecord


@dataclass(frozen=True)
class _Wish:
    build: Callable[[Stage], _Record]
    done: asyncio.Future[Any]


class Committer:
    """Writes to the archive, one group after the other."""

    def __init__(self, archive: Archive, key: Ed25519PrivateKey, clock: Callable[[], str]) -> None:
        """Start; `clock` gives the wall clock as a timestamp's text."""
        self._archive = archive
        self._key = key
        self._clock = clock
        self._wishes: list[_Wish] = []
        self._arrived = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def open(self, record: OpenRecord) -> None:
        """Make an open record durable.

        Raises:
            JournalFullError: If it might leave no room to end the sessions that are open.
            JournalUnavailableError: If it cannot be written.
        """

        def build(stage: Stage) -> OpenRecord:
            self._archive.verify_room(len(stage.opened))
            stage.open(record)
            return record

        await self._commit(build)

    async def close(self, client: str, receipt: str, draft: Draft) -> SignedReceipt:
        """End a session; return its receipt once that is durable.

        Raises:
            NotOpenError: If no session of this client is open under this id.
            JournalUnavailableError: If it cannot be written; the session is then still open.
        """

        def build(stage: Stage) -> ReceiptRecord:
            made = stage.close(client, receipt, draft, self._clock())
            return ReceiptRecord(signed=sign_receipt(made, self._key))

        record: ReceiptRecord = await self._commit(build)
        return record.signed

    async def place(self, records: Sequence[PlaceRecord]) -> None:
        """Make durable where in the log receipts are. Raises JournalUnavailableError."""
        held = [record for record in records if self._archive.holds(record.receipt)]
        await asyncio.gather(*(self._commit(partial(_as_it_is, record)) for record in held))
        self._archive.place(records)

    async def _commit(self, build: Callable[[Stage], _Record]) -> Any:
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
        built: list[tuple[_Wish, _Record]] = []
        for wish in group:
            try:
                built.append((wish, wish.build(stage)))
            except ApplianceError as error:
                _settle(wish, error)
        if not built:
            return
        payloads = [record.canonical_bytes() for _, record in built]
        try:
            offsets = await asyncio.to_thread(self._archive.append, payloads)
        except ApplianceError as error:
            for wish, _ in built:
                _settle(wish, error)
            return
        stage.commit()
        for (wish, record), offset in zip(built, offsets, strict=True):
            if isinstance(record, ReceiptRecord):
                self._archive.note(record.signed.receipt.id, offset)
            _settle(wish, record)

    async def aclose(self) -> None:
        """Stop; call it when nobody waits for a commit any more."""
        self.task.cancel()
        await asyncio.wait([self.task])


def _as_it_is(record: PlaceRecord, _stage: Stage) -> PlaceRecord:
    return record


def _settle(wish: _Wish, outcome: _Record | ApplianceError) -> None:
    if wish.done.done():
        return  # whoever asked was cancelled; what was written stays written
    if isinstance(outcome, ApplianceError):
        wish.done.set_exception(outcome)
    else:
        wish.done.set_result(outcome)

"""The counter at which one client's cells open and close sessions: a Unix socket that only they can reach.

Who speaks is decided by the socket, never by what is said. What was opened over a connection and not closed when it
ends is closed here, so that no session goes without a receipt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from appliance.core.budget import Allowance, Asks
from appliance.core.errors import RefusedError, UsageError
from appliance.core.names import random_id
from appliance.core.receipt import Draft, End, Opening
from appliance.core.schema import Closed
from inference.lines import MAX_CELL_LINE_BYTES, Request, listen, parse_request, serve_lines
from inference.notary.archive import Archive
from inference.notary.budget import Budget, QuotaError
from inference.notary.committer import Committer
from inference.notary.journal import JournalUnavailableError
from inference.notary.ledger import NotOpenError
from inference.notary.proofs import prove
from inference.notary.recent import Recent
from inference.notary.records import OpenRecord, lost_draft

MAX_OPEN = 1024  # sessions of one connection: four times what a cell can have
_RETRY_S = 1.0
_LAST_WAIT_S = 3.0
_REVOKED_GRACE_S = 1.0  # for a revoked client's cell to hand in drafts that count


class OpenRequest(Closed):
    """A session begins. `asks` is what it may need of the client's budgets; none if the cell knows of no budget."""

    id: int
    op: Literal["open"]
    opening: Opening
    asks: Asks | None = None


class CloseRequest(Closed):
    """A session ends."""

    id: int
    op: Literal["close"]
    receipt: str
    draft: Draft


_OFTEN: Final[TypeAdapter[OpenRequest | CloseRequest]] = TypeAdapter(
    Annotated[OpenRequest | CloseRequest, Field(discriminator="op")]
)


def _read(line: bytes) -> OpenRequest | CloseRequest | Request:
    """Read a request: in one pass the two that every session needs."""
    try:
        return _OFTEN.validate_json(line)
    except ValidationError:
        return parse_request(line)


class Counter:
    """One client's socket.

    Attributes:
        budget: What the client may use of a day; another one is in force with the next session that opens.
    """

    def __init__(
        self, client: str, archive: Archive, committer: Committer, clock: Callable[[], str], log: Path
    ) -> None:
        """`client` is the pseudonym; `clock` gives the wall clock as a timestamp's text; `log` is the published log."""
        self._client = client
        self._archive = archive
        self._committer = committer
        self._clock = clock
        self._log = log
        self.budget = Budget()
        self._recent = Recent()
        self._reason = End.CRASHED
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def listen(self, path: Path) -> None:
        """Serve on `path`; whoever can reach the folder may connect."""
        self._server = await listen(path, self._serve, mode=0o666, line_bytes=MAX_CELL_LINE_BYTES)

    async def close(self, reason: End) -> None:
        """Stop listening; end what is open with `reason`. A revoked client's cell is first given time to do so."""
        self._reason = reason
        if self._server is not None:
            self._server.close()
        if self._connections and reason is End.REVOKED:
            await asyncio.wait(self._connections, timeout=_REVOKED_GRACE_S)
        for writer in self._connections.values():
            writer.transport.abort()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_LAST_WAIT_S)
            for task in late:  # the journal cannot be written; the next start closes what is open
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._connections[task] = writer
        opened: set[str] = set()
        try:
            await serve_lines(reader, writer, _read, lambda request: self._handle(request, opened))
            await self._close_lost(opened)
        finally:
            del self._connections[task]

    async def _handle(
        self, request: OpenRequest | CloseRequest | Request, opened: set[str]
    ) -> dict[str, Any] | bytes:
        if isinstance(request, OpenRequest):
            receipt, granted = await self._open(request, opened)
            return (
                {"receipt": receipt}
                if granted is None
                else {"receipt": receipt, "grant": granted.model_dump()}
            )
        if isinstance(request, CloseRequest):
            signed = await self._close(request.receipt, request.draft, opened)
            return b"".join((b'{"signed":', signed, b"}"))
        # One of those two that is not as it must be: find out what to say of it.
        if request.op == "open":
            opening, *asks = request.take("opening", *({"asks"} & request.fields.keys()))
            Opening.parse(opening)
            for said in asks:
                Asks.parse(said)
        if request.op == "close":
            receipt, draft = request.take("receipt", "draft")
            _text(receipt)
            Draft.parse(draft)
        if request.op == "get":
            (receipt,) = request.take("receipt")
            return {"signed": self._archive.of(self._client, _text(receipt))[0].model_dump(mode="json")}
        if request.op == "recent":
            request.take()
            return self._recent.of_a_minute().model_dump()
        if request.op == "prove":
            (receipt,) = request.take("receipt")
            _, place = self._archive.of(self._client, _text(receipt))
            proof = await asyncio.to_thread(prove, self._log, place)
            return {"proof": proof.render().decode("utf-8")}
        raise UsageError("no such op")

    async def _open(self, request: OpenRequest, opened: set[str]) -> tuple[str, Allowance | None]:
        opening = request.opening
        if len(opened) >= MAX_OPEN:
            raise RefusedError("too many open sessions", field="opening")
        receipt = random_id()
        record = OpenRecord(client=self._client, receipt=receipt, opened_at=self._clock(), opening=opening)
        opened.add(receipt)
        try:
            granted = await self._committer.open(record, self.budget, request.asks)
        except (JournalUnavailableError, QuotaError, RefusedError):
            opened.discard(receipt)
            raise
        return receipt, granted

    async def _close(self, receipt: str, draft: Draft, opened: set[str]) -> bytes:
        if draft.end is End.CRASHED:
            raise RefusedError("only the notary says that a cell crashed", field="draft.end")
        if receipt not in opened:
            raise NotOpenError("no open session has this receipt", field="receipt")
        signed = await self._committer.close(self._client, receipt, draft)
        opened.discard(receipt)
        self._recent.note(draft.requests, draft.prompt_tokens + draft.completion_tokens)
        return signed

    async def _close_lost(self, opened: set[str]) -> None:
        """Write the receipts that the cell did not, for as long as it takes; at worst the next start does it."""
        for receipt in sorted(opened):
            while True:
                try:
                    await self._committer.close(self._client, receipt, lost_draft(self._reason))
                    self._recent.note(1, 0)
                    break
                except JournalUnavailableError:
                    await asyncio.sleep(_RETRY_S)
                except NotOpenError:
                    break


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError("a receipt id is text")
    return value

"""The cell's side of docs/spec/node-protocols.md section 3: JSON lines over a socket that was connected before
confinement. One request at a time; the cell lives no longer than this connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final, NamedTuple

from appliance.core.budget import Allowance, Asks, Used
from appliance.core.errors import RefusedError, UnavailableError
from appliance.core.receipt import Draft, Opening, SignedReceipt

TIMEOUT_S: Final = (
    5.0  # an fsync on a healthy disk takes milliseconds; later the order of replies is in doubt
)
_MAX_LINE_BYTES: Final = 2**20


class NotaryUnavailableError(UnavailableError):
    """The notary refused, did not answer in time, or is gone."""

    code = "notary_unavailable"


class UnknownReceiptError(RefusedError):
    """This client has no receipt of that id."""

    code = "not_found"


class NotLoggedError(UnavailableError):
    """The log does not hold the receipt yet."""

    code = "not_logged"


class QuotaError(UnavailableError):
    """The client's budget of the day is used up."""

    code = "quota_exceeded"


class Opened(NamedTuple):
    """A session that was opened.

    Attributes:
        receipt: Id of its receipt.
        grant: What it may use of its client's budgets of the day, None if there are none.
    """

    receipt: str
    grant: Allowance | None


class Notary:
    """A connection to the notary.

    Attributes:
        lost: Set when the connection has ended or can no longer be trusted; nothing sets it back.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._next_id = 0
        self._reply: asyncio.Future[bytes] | None = None
        self.lost = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def over(cls, connection: socket.socket) -> Notary:
        """Speak over a connected Unix stream socket."""
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_MAX_LINE_BYTES)
        return cls(reader, writer)

    async def open(self, opening: Opening, asks: Asks | None = None) -> Opened:
        """Record that a session opens; return once the record is durable.

        Args:
            opening: What is recorded.
            asks: What it may need of the client's budgets of the day; None if it has none.

        Raises:
            QuotaError: If there is less left than it needs.
            NotaryUnavailableError: Then the session must not be served.
        """
        asked = {} if asks is None else {"asks": asks.model_dump()}
        result = await self._ask({"op": "open", "opening": opening.model_dump(mode="json"), **asked})
        receipt, grant = result.get("receipt"), result.get("grant")
        if not isinstance(receipt, str):
            raise self._distrust()
        try:
            return Opened(receipt, None if grant is None else Allowance.parse(grant))
        except RefusedError:
            raise self._distrust() from None

    async def recent(self) -> Used:
        """Return what the client used within the last minute, in sessions that have ended.

        Raises:
            NotaryUnavailableError: If the notary does not answer.
        """
        try:
            return Used.parse(await self._ask({"op": "recent"}))
        except RefusedError:
            raise self._distrust() from None

    async def close(self, receipt: str, draft: Draft) -> SignedReceipt:
        """Hand over the draft of an ended session; return the receipt once it is durable.

        Raises:
            NotaryUnavailableError: Then the notary closes the session itself, as crashed, when the connection ends.
        """
        result = await self._ask({"op": "close", "receipt": receipt, "draft": draft.model_dump(mode="json")})
        return self._signed(result)

    async def get(self, receipt: str) -> SignedReceipt:
        """Return a receipt of this client.

        Raises:
            UnknownReceiptError: If there is none of this id.
            NotaryUnavailableError: If the notary does not answer.
        """
        return self._signed(await self._ask({"op": "get", "receipt": receipt}))

    async def prove(self, receipt: str) -> str:
        """Return the proof that the log holds a receipt of this client, as it would be kept in a file.

        Raises:
            UnknownReceiptError: If there is none of this id.
            NotLoggedError: If the log does not hold it yet.
            NotaryUnavailableError: If the notary does not answer.
        """
        proof = (await self._ask({"op": "prove", "receipt": receipt})).get("proof")
        if not isinstance(proof, str):
            raise self._distrust()
        return proof

    async def aclose(self) -> None:
        """End the connection."""
        self._listening.cancel()
        self._writer.close()
        await asyncio.wait([self._listening])

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        # A caller that is cancelled must not leave a reply behind that the next one would take for its own.
        return await asyncio.shield(asyncio.create_task(self._exchange(request)))

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            if self.lost.is_set():
                raise NotaryUnavailableError("the notary is gone")
            self._next_id += 1
            request_id = self._next_id
            self._reply = asyncio.get_running_loop().create_future()
            line = json.dumps({"id": request_id, **request}, separators=(",", ":"))
            self._writer.write(line.encode("utf-8") + b"\n")
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    reply = json.loads(await self._reply)
            except (TimeoutError, ValueError):
                raise self._distrust() from None
            finally:
                self._reply = None
            return self._result(request_id, reply)

    def _result(self, request_id: int, reply: Any) -> dict[str, Any]:
        if not isinstance(reply, dict) or reply.get("id") != request_id:
            raise self._distrust()
        result = reply.get("result")
        if reply.get("ok") is True and isinstance(result, dict):
            return result
        error = reply.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if code == UnknownReceiptError.code:
            raise UnknownReceiptError("no receipt of this id", field="receipt")
        if code == QuotaError.code:
            raise QuotaError("the budget of the day is used up")
        if code == NotLoggedError.code:
            raise NotLoggedError("the log does not hold this receipt yet")
        raise NotaryUnavailableError("the notary refused")

    def _signed(self, result: dict[str, Any]) -> SignedReceipt:
        try:
            return SignedReceipt.parse(result.get("signed"))
        except RefusedError:
            raise self._distrust() from None

    def _distrust(self) -> NotaryUnavailableError:
        self._end()
        return NotaryUnavailableError("the notary did not answer as it should")

    def _end(self) -> None:
        self.lost.set()
        self._writer.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(NotaryUnavailableError("the notary is gone"))

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                if self._reply is None or self._reply.done():
                    break  # nobody asked
                self._reply.set_result(line)
        except (OSError, ValueError):  # ValueError: a line beyond the limit
            pass
        finally:
            self._end()

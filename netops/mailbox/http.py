"""The mailbox over HTTP: one address, three methods (docs/spec/enrolment-v1.md section 4).

    POST    {"box"}   leave the letter; the same one again does no harm
    GET               is there an answer?
    DELETE            the device has it: the throw-away peer may go

The secret stands in `Authorization: Bearer`; NGINX says in `X-Peer-Address` whose tunnel a request came through. Both must be of the
same invitation. Whatever is wrong with them, expired and cancelled ones too, is answered with the same words.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import StringConstraints

from appliance.core.box import Box
from appliance.core.enrolment import MAX_LETTER_CHARACTERS, PATH
from appliance.core.errors import RefusedError
from appliance.core.names import ZERO_DIGEST
from appliance.core.schema import Closed
from appliance.core.ticket import redeem_digest
from netops.mailbox.roster import Entry, RosterFile
from netops.mailbox.spool import Letter, Progress, Spool

MAX_BODY_BYTES: Final = MAX_LETTER_CHARACTERS + 64
Reply = tuple[int, dict[str, Any]]


class Posted(Closed):
    """The body of a POST."""

    box: Annotated[Box, StringConstraints(max_length=MAX_LETTER_CHARACTERS)]


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


_UNKNOWN: Final[Reply] = (404, _error("unknown_invitation", "There is no such invitation."))
_MALFORMED: Final[Reply] = (400, _error("malformed", "The body is not what the protocol says."))
_USED: Final[Reply] = (409, _error("redeemed_before", "Somebody has redeemed this invitation before."))
_NOT_YET: Final[Reply] = (409, _error("not_redeemed", "Nobody has redeemed this invitation yet."))
_WAITING: Final[Reply] = (202, {"state": "waiting"})
_DONE: Final[Reply] = (200, {"state": "done"})


class Mailbox:
    """What is answered, without HTTP.

    Args:
        roster: Whom it knows.
        spool: Where letters are kept.
        clock: Seconds since 1970.
    """

    def __init__(self, roster: RosterFile, spool: Spool, clock: Callable[[], float]) -> None:
        self._roster = roster
        self._spool = spool
        self._clock = clock

    def answer(self, method: str, address: str, secret: str, body: bytes) -> Reply:
        """Return status and JSON object."""
        guest = self._admit(address, secret)
        if guest is None:
            return _UNKNOWN
        letter = self._spool.find(guest.secret_sha256)
        if method == "POST":
            return self._redeem(guest, letter, body)
        if letter is None:
            return _NOT_YET
        return self._confirm(letter) if method == "DELETE" else self._hand_out(guest, letter)

    def _admit(self, address: str, secret: str) -> Entry | None:
        guest = self._roster.find(address)
        # Compared although nobody is known under the address, so that both take the same time.
        known = guest.secret_sha256 if guest is not None else ZERO_DIGEST
        same = hmac.compare_digest(redeem_digest(secret), known)
        return guest if guest is not None and same and self._clock() < guest.expires_at else None

    def _redeem(self, guest: Entry, letter: Letter | None, body: bytes) -> Reply:
        try:
            box = Posted.parse(json.loads(body)).box
        except (ValueError, RecursionError, RefusedError):
            return _MALFORMED
        if letter is None:
            self._spool.keep(Letter(box=box, progress=Progress.REDEEMED, secret_sha256=guest.secret_sha256))
            return _WAITING
        return _WAITING if hmac.compare_digest(letter.box, box) else _USED

    def _hand_out(self, guest: Entry, letter: Letter) -> Reply:
        if guest.answer is None:
            return _WAITING
        if letter.progress is Progress.REDEEMED:
            self._spool.keep(letter.model_copy(update={"progress": Progress.DELIVERED}))
        return 200, {"state": "ready", "answer": guest.answer}

    def _confirm(self, letter: Letter) -> Reply:
        if letter.progress is Progress.REDEEMED:
            return _WAITING  # what was not handed out cannot have arrived
        self._spool.keep(letter.model_copy(update={"progress": Progress.CONFIRMED}))
        return _DONE


class Http:
    """The ASGI application. NGINX has parsed, bounded and paced what comes here; a second look costs little."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status, value = await self._answer(scope, receive)
        body = json.dumps(value, separators=(",", ":")).encode("ascii")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, receive: Any) -> Reply:
        if scope["path"] != PATH or scope["method"] not in {"GET", "POST", "DELETE"}:
            return _UNKNOWN
        body = await _read(receive)
        address, bearer = (_header(scope, name) for name in (b"x-peer-address", b"authorization"))
        kind, _, secret = bearer.partition(" ")
        if kind != "Bearer":
            secret = ""
        if body is None:  # too long: as one that is no letter
            return self._mailbox.answer("POST", address, secret, b"")
        return self._mailbox.answer(scope["method"], address, secret, body)


async def _read(receive: Any) -> bytes | None:
    """Return the body, None if it is too long or whoever sent it went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        piece: bytes = message.get("body", b"")
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _header(scope: Any, name: bytes) -> str:
    """Return a header that is there once; an empty text else."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""

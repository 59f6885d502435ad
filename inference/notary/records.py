"""What the journal's payloads say: that a session was opened, the signed receipt of one that ended, and what a segment begins with."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from appliance.core.budget import Allowance
from appliance.core.names import Digest, Hex128, Timestamp
from appliance.core.receipt import Count, Draft, End, Erase, Opening, SignedReceipt
from appliance.core.schema import Closed, is_absent

_RECEIPT: Final = b'{"kind":"receipt","signed":'


class OpenRecord(Closed):
    """A session was opened; durable before the first byte of its first answer.

    Attributes:
        client: Pseudonym.
        granted: What it may use of the client's budgets; None if there were none.
        receipt: Id of the receipt that will end it.
    """

    client: Digest
    granted: Annotated[Allowance | None, Field(exclude_if=is_absent)] = None
    kind: Literal["open"] = "open"
    opened_at: Timestamp
    opening: Opening
    receipt: Hex128


class ReceiptRecord(Closed):
    """A session ended."""

    kind: Literal["receipt"] = "receipt"
    signed: SignedReceipt


def receipt_payload(signed: bytes) -> bytes:
    """Return the canonical bytes of a `ReceiptRecord`, given those of its signed receipt."""
    return b"".join((_RECEIPT, signed, b"}"))


def signed_text(payload: bytes) -> str:
    """Return the canonical text of the signed receipt in such a payload."""
    return payload.removeprefix(_RECEIPT)[:-1].decode("utf-8")


class StartRecord(Closed):
    """The first record of a segment.

    Attributes:
        receipts: How many there were before it.
        placed: Places of the log below this one are known, as far as they are this node's.
        past: Digest over the receipts before it.
    """

    kind: Literal["start"] = "start"
    v: Literal[1] = 1
    receipts: Count
    placed: Count
    past: Digest


class HeadRecord(Closed):
    """A client's last receipt before a segment: its number and digest."""

    kind: Literal["head"] = "head"
    client: Digest
    seq: Count
    digest: Digest


class SpentRecord(Closed):
    """What a client's sessions that have ended before a segment used of a day, which counts from the first of the year 1."""

    kind: Literal["spent"] = "spent"
    client: Digest
    day: Count
    requests: Count
    tokens: Count


class PlaceRecord(Closed):
    """Where in the log a receipt is."""

    kind: Literal["place"] = "place"
    receipt: Hex128
    place: Count


class Places(Closed):
    """Places that control hands over at once."""

    places: Annotated[tuple[PlaceRecord, ...], Field(max_length=1000)]


def lost_draft(end: End) -> Draft:
    """Return the draft that the notary writes for a cell that said nothing: it counts nothing and claims nothing."""
    return Draft(
        end=end,
        requests=0,
        prompt_tokens=0,
        completion_tokens=0,
        retrieved_chunks=0,
        corpora=(),
        erase=Erase(bytes=0, verified=False),
    )

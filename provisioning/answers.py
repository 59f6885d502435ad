"""What a node answers, as closed schemas: a node is trusted with its own affairs, not with control's parser."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from appliance.core.bundle import MAX_GUESTS, Accepted
from appliance.core.enrolment import MAX_LETTER_CHARACTERS
from appliance.core.heartbeat import SignedHeartbeat
from appliance.core.names import Digest, Hex128, Key32, Name, Version
from appliance.core.schema import Closed

Text = Annotated[str, StringConstraints(max_length=512)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Milliseconds = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Identity(Closed):
    """Who the node is. Fields as in node-protocols.md."""

    node: Name
    wireguard_public_key: Key32
    receipt_public_key: Key32
    tls_request: Annotated[str, StringConstraints(max_length=16_384)]
    boot: Hex128
    appliance: Version


class State(Closed):
    """What the node accepted last, its epoch (0 before the first bundle), and which model files it holds."""

    accepted: Accepted | None
    boot: Hex128
    epoch: Count
    models: Annotated[tuple[Digest, ...], Field(max_length=4096)]


class Stored(Closed):
    """Whether a model file was stored; False if the node had it."""

    stored: bool


class Raised(Closed):
    """The epoch that the node is in now."""

    epoch: Count


class Planned(Closed):
    """What `apply` would do."""

    actions: Annotated[tuple[Text, ...], Field(max_length=100_000)]
    why_empty: Text | None = None


class Applied(Closed):
    """What `apply` did."""

    accepted: Accepted
    actions: Annotated[tuple[Text, ...], Field(max_length=100_000)]
    milliseconds: Milliseconds


class Revoked(Closed):
    """What a revocation removed."""

    removed: Annotated[tuple[Key32, ...], Field(max_length=10_000)]
    ended: Annotated[tuple[Name, ...], Field(max_length=10_000)]
    milliseconds: Milliseconds


class Granted(Closed):
    """Which devices are peers by a grant."""

    added: Annotated[tuple[Key32, ...], Field(max_length=10_000)]
    milliseconds: Milliseconds


class Entry(Closed):
    """One entry of the node's journal.

    Attributes:
        signed: Text, if the node is honest. It is looked at by whoever admits it, so that one bad entry stops no other.
    """

    position: Annotated[int, Field(ge=0, le=2**53 - 1)]
    signed: Any


class Receipts(Closed):
    """A piece of the node's journal."""

    entries: Annotated[tuple[Entry, ...], Field(max_length=10_000)]
    next: Annotated[int, Field(ge=0, le=2**53 - 1)]


class Beat(Closed):
    """What the notary says of its journal."""

    signed: SignedHeartbeat


class Admitted(Closed):
    """How many receipts control has not said it has."""

    waiting: Count


class Letter(Closed):
    """What was posted to the node's mailbox for one invitation, and how far its exchange is."""

    box: Annotated[
        str, StringConstraints(max_length=MAX_LETTER_CHARACTERS, pattern=r"^[A-Za-z0-9+/]+={0,2}$")
    ]
    progress: Literal["redeemed", "delivered", "confirmed"]
    secret_sha256: Digest
    v: Literal[1] = 1


class Letters(Closed):
    """What the mailbox holds."""

    letters: Annotated[tuple[Letter, ...], Field(max_length=MAX_GUESTS)]


class Published(Closed):
    """Size of the log that the node publishes."""

    size: Count


class PublishedFile(Closed):
    """A file of the log that the node publishes, in base64; None if it is not there."""

    data: Annotated[str, StringConstraints(max_length=65_536)] | None


class Placed(Closed):
    """The node's receipts below this place in the log know theirs."""

    placed: Count

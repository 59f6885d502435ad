"""The event: one thing that somebody did to control. Normative text: docs/spec/audit-event-v1.md.

It is an entry of the log of receipts, byte for byte. Nothing of Django is imported: whoever verifies events needs no database.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from appliance.core.names import Digest, Hex128, Name, Timestamp
from appliance.core.schema import Closed
from control.journal.vocabulary import FACTS, KINDS, Kind, Verb

Number = Annotated[int, Field(ge=1, le=2**53 - 1)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=150)]
"""A name that somebody else than us gave: Django's user names and Unix's are wider than ours."""
Value = bool | int | str | tuple[str, ...] | None


class Source(StrEnum):
    """By which way it was done."""

    API = "api"
    CLI = "cli"
    CONSOLE = "console"
    RECONCILER = "reconciler"


class ActorKind(StrEnum):
    """What kind of actor."""

    NOBODY = "nobody"  # who failed to log in; has no name
    OPERATOR = "operator"
    PROCESS = "process"  # one of control's own
    UNIX = "unix"  # a user of the management machine


class Actor(Closed):
    """Who did it.

    Attributes:
        kind: What kind of actor.
        name: Its name.
        token: The API token by which an operator did it.
    """

    kind: ActorKind
    name: Label
    token: Name | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.token}" if self.token else self.name


class Object(Closed):
    """What it was done to.

    Attributes:
        kind: What kind of object.
        name: Its name; parts are separated by a slash.
    """

    kind: Kind
    name: Label


class Change(Closed):
    """A fact that changed.

    Attributes:
        after, before: Its values; null: there was or is none.
        fact: Which one.
    """

    after: Value
    before: Value
    fact: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,48}$")]


class Event(Closed):
    """One thing that somebody did.

    Attributes:
        actor, source: Who, and by which way.
        at: Wall clock of control; a hint, `number` is the order.
        changes: What changed, by fact, each fact once.
        id: 128 random bits: nobody can guess the hash of an event, which is public.
        number: Counted from 1 without gaps.
        object: What it was done to.
        prev: SHA-256 of the canonical bytes of the event before; 64 zeros for the first.
        request: The same for all events of one request, command or pass.
        type, v: What this is. No receipt has them.
        verb: What was done.
    """

    actor: Actor
    at: Timestamp
    changes: Annotated[tuple[Change, ...], Field(max_length=64)]
    id: Hex128
    number: Number
    object: Object
    prev: Digest
    request: Hex128
    source: Source
    type: Literal["audit-event"] = "audit-event"
    v: Literal[1] = 1
    verb: Verb

    @model_validator(mode="after")
    def _verify_vocabulary(self) -> Self:
        if self.object.kind is not KINDS[self.verb]:
            raise ValueError("the verb is not done to such an object")
        facts = [change.fact for change in self.changes]
        if facts != sorted(set(facts)):
            raise ValueError("facts stand once each, in their order")
        for change in self.changes:
            _verify_change(change, self.object.kind)
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes; the next event's `prev`."""
        return hashlib.sha256(self.canonical_bytes()).hexdigest()


def _verify_change(change: Change, kind: Kind) -> None:
    """Check a change by the types of its fact; return None or raise ValueError."""
    allowed = FACTS[kind].get(change.fact)
    if allowed is None:
        raise ValueError("such an object has no such fact")
    if change.before == change.after:
        raise ValueError("a fact that did not change")
    for value in (change.before, change.after):
        try:
            if value is not None:
                allowed.validate_python(value, strict=True)
        except ValidationError:
            raise ValueError("a value that the fact cannot have") from None

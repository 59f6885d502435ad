"""The one verb of the journal: record what was done, in the transaction that does it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from appliance.core.names import ZERO_DIGEST, random_id
from appliance.core.receipt import timestamp
from control.journal.actors import current
from control.journal.event import Change, Event, Object
from control.journal.models import AuditEvent
from control.journal.vocabulary import KINDS, Verb

Changes = Mapping[str, tuple[Any, Any]]
"""Facts, with their values before and after."""
_LOCK: Final = 0x6A6F75726E616C  # of PostgreSQL's advisory locks; no other code takes one


def record(verb: Verb, name: str, changes: Changes | None = None) -> Event:
    """Record that whoever acts did something. Call it last in a transaction: others wait from here on for its end.

    Args:
        verb: What was done.
        name: Of what it was done to.
        changes: Facts (`vocabulary.FACTS`) with their values before and after; those that are equal are left out.

    Raises:
        NoActorError: If nobody acts (`actors`). The transaction must end then, and the change with it.
        RuntimeError: If no transaction is open: the event could be there without the change.
        ValidationError: If the vocabulary does not know such a change. A fault in our code, like the others.
    """
    actor, acting = current()
    if not connection.in_atomic_block:
        raise RuntimeError("an event is recorded in the transaction of the change")
    number, prev = _take_turn()
    event = Event(
        actor=actor,
        at=timestamp(timezone.now()),
        changes=_changes(changes or {}),
        id=random_id(),
        number=number,
        object=Object(kind=KINDS[verb], name=name),
        prev=prev,
        request=acting.request,
        source=acting.source,
        verb=verb,
    )
    AuditEvent.objects.create(
        number=number, text=event.canonical_bytes().decode("utf-8"), digest=event.digest
    )
    return event


def created(**facts: Any) -> dict[str, tuple[Any, Any]]:
    """Return the changes of something that was not there before."""
    return {name: (None, value) for name, value in facts.items()}


@transaction.atomic(savepoint=False)
def _take_turn() -> tuple[int, str]:
    """Return the number of the next event and the digest of the last, and keep others from taking them until the transaction ends.

    SQLite's transactions have the file to themselves from their beginning; PostgreSQL's wait here.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    last = AuditEvent.objects.order_by("-number").values_list("number", "digest").first()
    return (last[0] + 1, last[1]) if last else (1, ZERO_DIGEST)


def _changes(changes: Changes) -> tuple[Change, ...]:
    found = ((fact, _plain(before), _plain(after)) for fact, (before, after) in sorted(changes.items()))
    return tuple(
        Change(fact=fact, before=before, after=after) for fact, before, after in found if before != after
    )


def _plain(value: Any) -> Any:
    """Return a value as an event has it: no enum's member, no list, and a moment as text."""
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return str(value) if isinstance(value, str) else value

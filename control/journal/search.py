"""Finds events: the filter that the API and the command line share."""

from __future__ import annotations

from typing import Annotated

from django.db.models import QuerySet
from pydantic import Field, StringConstraints

from appliance.core.names import Hex128
from appliance.core.receipt import timestamp
from control.audit.search import Moment
from control.journal.event import Source
from control.journal.models import AuditEvent
from control.journal.vocabulary import Kind, Verb
from control.query import QueryFilter

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,150}$")]


class EventFilter(QueryFilter):
    """Which events.

    Attributes:
        actor: Name of the operator, user or process.
        verb: What was done.
        kind: Kind of what it was done to.
        object: Its name, as in events: a device's is CLIENT/DEVICE.
        source: By which way.
        request: Id of the request; the answer had it in `X-Request-Id`.
        from_at, to_at: Recorded at this moment or later, and before that one (`from`, `to`).
    """

    actor: Text | None = None
    verb: Verb | None = None
    kind: Kind | None = None
    object: Text | None = None
    source: Source | None = None
    request: Hex128 | None = None
    from_at: Moment | None = Field(default=None, alias="from")
    to_at: Moment | None = Field(default=None, alias="to")

    def select(self) -> QuerySet[AuditEvent]:
        """Return the events with their places, in the order of their numbers."""
        conditions = {
            "actor": self.actor,
            "verb": self.verb,
            "kind": self.kind,
            "name": self.object,
            "source": self.source,
            "request": self.request,
            "at__gte": self.from_at and timestamp(self.from_at),
            "at__lt": self.to_at and timestamp(self.to_at),
        }
        asked = {name: value for name, value in conditions.items() if value is not None}
        found: QuerySet[AuditEvent] = AuditEvent.objects.filter(**asked)
        return found.select_related("logged").order_by("number")

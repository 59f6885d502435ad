"""Events and their places in the log. Rows are added and never changed: the ORM refuses it here, the database in `triggers`."""

from __future__ import annotations

import json
from typing import Any, ClassVar, NoReturn

from django.db import models
from django.db.models.sql.compiler import SQLCompiler

from control.journal.event import Event


class AppendOnlyError(RuntimeError):
    """Something would change or delete what is only ever added. A fault in our code."""


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise AppendOnlyError("the journal is only added to")


class AppendOnly(models.QuerySet[Any]):
    """Rows that are read and added."""

    update = bulk_update = update_or_create = delete = _refuse


class Appended(models.Model):
    """A row that is added once."""

    objects = models.Manager.from_queryset(AppendOnly)()

    class Meta:
        abstract = True

    delete = _refuse

    def save(self, *_: Any, **__: Any) -> None:
        """Add the row."""
        if not self._state.adding:
            _refuse()
        super().save(force_insert=True)


class Member(models.Func):
    """A member of a JSON text: what stands in a column cannot disagree with what was recorded.

    Args:
        text: The column.
        path: Names of members, from the outside inwards.
    """

    arity = 1

    def __init__(self, text: str, *path: str) -> None:
        super().__init__(text, template=f"JSON_EXTRACT(%(expressions)s, '$.{'.'.join(path)}')")
        self._path = path

    def as_postgresql(self, compiler: SQLCompiler, connection: Any, **context: Any) -> Any:
        """Write it for PostgreSQL."""
        template = f"((%(expressions)s)::jsonb #>> '{{{','.join(self._path)}}}')"
        return self.as_sql(compiler, connection, template=template, **context)


def _member(length: int, *path: str, null: bool = False) -> models.GeneratedField:
    column = models.CharField(max_length=length, null=null)
    return models.GeneratedField(expression=Member("text", *path), output_field=column, db_persist=True)


class AuditEvent(Appended):
    """One event.

    Attributes:
        number: As in `Event`.
        text: Its canonical bytes, as text: the entry of the log.
        digest: SHA-256 of that.

        uid: `id`, which Django keeps for itself.

    The others are members of `text`.
    """

    number = models.PositiveBigIntegerField(primary_key=True)
    text = models.TextField()
    digest = models.CharField(max_length=64)
    uid = _member(32, "id")
    at = _member(24, "at")
    source = _member(16, "source")
    actor = _member(150, "actor", "name")
    token = _member(32, "actor", "token", null=True)
    verb = _member(32, "verb")
    kind = _member(16, "object", "kind")
    name = _member(150, "object", "name")
    request = _member(32, "request")

    class Meta:
        verbose_name = "event"
        ordering: ClassVar = ["number"]
        indexes: ClassVar = [
            models.Index(fields=["at"], name="events_by_time"),
            models.Index(fields=["actor", "number"], name="events_by_actor"),
            models.Index(fields=["verb", "number"], name="events_by_verb"),
            models.Index(fields=["name", "number"], name="events_by_object"),
            models.Index(fields=["request"], name="events_by_request"),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.verb}"

    def event(self) -> Event:
        """Return the event.

        Raises:
            RefusedError: If its text is none any more.
        """
        return Event.parse_canonical(self.text.encode("utf-8"))

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What changed, as JSON."""
        found: list[dict[str, Any]] = json.loads(self.text)["changes"]
        return found

    @property
    def place(self) -> int | None:
        """Its place in the log, None until it has one."""
        logged: EventPlace | None = getattr(self, "logged", None)
        return logged.place if logged else None


class EventPlace(Appended):
    """Where in the log an event is. Events get their places in the order of their numbers."""

    event = models.OneToOneField(
        AuditEvent, primary_key=True, on_delete=models.PROTECT, related_name="logged"
    )
    place = models.PositiveBigIntegerField(unique=True)

    def __str__(self) -> str:
        return f"{self.event_id} at {self.place}"

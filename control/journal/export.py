"""Events as files for people and their tools: CSV for tables, JSON Lines of the events themselves. `evidence` is the one that proves.

Both are made piece by piece: memory does not grow with the number of events.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Final

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

from control.audit.export import Format
from control.journal.models import AuditEvent

PIECE: Final = 1000  # events: less than a megabyte
COLUMNS: Final = (
    *("number", "id", "at", "source", "actor_kind", "actor", "token", "verb", "kind", "object"),
    *("changes", "request", "prev", "digest", "place"),
)
_FORMULA: Final = ("=", "+", "-", "@")  # OWASP, "CSV injection"; control characters no name can have


def write_events(events: QuerySet[AuditEvent], form: Format) -> Iterator[bytes]:
    """Yield the file's bytes, a piece of events at a time; those that come while it is written are left out."""
    if form is Format.CSV:
        yield _rows([COLUMNS])
    for piece in pieces(events):
        if form is Format.JSONL:
            yield "".join(f"{event.text}\n" for event in piece).encode("utf-8")
        else:
            yield _rows(map(_row, piece))


def stream_events(events: QuerySet[AuditEvent], form: Format) -> StreamingHttpResponse:
    """Answer with events as a file that is made while it is sent."""
    name = f"events-{timezone.now():%Y%m%dT%H%M%SZ}.{form.value}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(write_events(events, form), content_type=form.content_type, headers=headers)


def pieces(events: QuerySet[AuditEvent]) -> Iterator[list[AuditEvent]]:
    """Yield the events that are there now, in the order of their numbers."""
    newest = AuditEvent.objects.order_by("-number").values_list("number", flat=True).first() or 0
    rows, last = events.filter(number__lte=newest).order_by("number"), 0
    while piece := list(rows.filter(number__gt=last)[:PIECE]):
        yield piece
        last = piece[-1].number


def _rows(rows: Iterable[Iterable[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)  # RFC 4180: commas, CRLF
    return buffer.getvalue().encode("utf-8")


def _row(row: AuditEvent) -> list[str]:
    event = row.event()
    changes = (f"{change.fact}: {_told(change.before)} to {_told(change.after)}" for change in event.changes)
    cells = (
        *(event.number, event.id, event.at, event.source, event.actor.kind, event.actor.name),
        *(event.actor.token, event.verb, event.object.kind, event.object.name, "; ".join(changes)),
        *(event.request, event.prev, row.digest, row.place),
    )
    return [_cell(cell) for cell in cells]


def _told(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text

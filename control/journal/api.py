"""Events over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from django.conf import settings
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from pydantic import StringConstraints
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import GenericViewSet

from control.api.openapi import Spoken
from control.api.pagination import Pages
from control.audit.api import Decimal, OneForm
from control.audit.export import Format
from control.journal.export import stream_events
from control.journal.models import AuditEvent
from control.journal.proving import prove_event, write_evidence
from control.journal.search import EventFilter
from control.query import QueryFilter

_TEXT = "text/plain; charset=utf-8"
_LINES = Format.JSONL.content_type


class EventPage(EventFilter):
    """A page of the list of events.

    Attributes:
        after: `number` of the last event of the page before.
        page_size: How many, 1 to 1000.
    """

    paging: ClassVar[frozenset[str]] = frozenset()

    after: Decimal = "0"
    page_size: Annotated[str, StringConstraints(pattern=r"^(1000|[1-9][0-9]{0,2})$")] = str(Pages.page_size)


class EventExport(EventFilter):
    """What to export, and as what."""

    paging: ClassVar[frozenset[str]] = frozenset()

    format: Format


class EvidenceQuery(QueryFilter):
    """Which evidence.

    Attributes:
        after: Number of the event before the first one.
    """

    paging: ClassVar[frozenset[str]] = frozenset()

    after: Decimal = "0"


class EventShape(serializers.ModelSerializer[AuditEvent]):
    """An event."""

    id = serializers.CharField(source="uid", read_only=True)
    at = serializers.CharField(read_only=True)
    source = serializers.CharField(read_only=True)  # type: ignore[assignment]
    actor = serializers.CharField(read_only=True)
    token = serializers.CharField(read_only=True, allow_null=True)
    verb = serializers.CharField(read_only=True)
    kind = serializers.CharField(read_only=True)
    object = serializers.CharField(source="name", read_only=True)
    changes = serializers.JSONField(read_only=True)
    request = serializers.CharField(read_only=True)
    place = serializers.SerializerMethodField()

    class Meta:
        model = AuditEvent
        fields: ClassVar = [
            *("number", "id", "at", "source", "actor", "token", "verb", "kind", "object"),
            *("changes", "request", "digest", "place"),
        ]

    def get_place(self, row: AuditEvent) -> int | None:
        """Return its place in the log, null until it has one."""
        return row.place


class EventView(mixins.RetrieveModelMixin, GenericViewSet[AuditEvent]):
    """`/events`: a page of the list, `/events/export` all that match as a file, `/events/evidence` all with their proofs,
    `/events/NUMBER` one of the list, `/events/NUMBER/entry` as the log has it, `/events/NUMBER/proof` that the log has it.
    """

    queryset = AuditEvent.objects.select_related("logged")
    speaks: ClassVar = {
        "list": Spoken(query=EventPage, answer=EventShape),
        "export": Spoken(query=EventExport, answer="*/*"),
        "evidence": Spoken(query=EvidenceQuery, answer=_LINES),
        "entry": Spoken(answer="application/json"),
        "proof": Spoken(answer=_TEXT),
    }
    serializer_class = EventShape
    lookup_value_regex = "[0-9]{1,18}"
    content_negotiation_class = OneForm

    def list(self, request: Request) -> Response:
        """Return a page. Pages follow numbers, which only grow: none shifts while events come in."""
        page = EventPage.parse_query(request.query_params)
        size = int(page.page_size)
        rows = list(page.select().filter(number__gt=int(page.after))[: size + 1])
        shown = rows[:size]
        url = request.build_absolute_uri()
        following = replace_query_param(url, "after", str(shown[-1].number)) if len(rows) > size else None
        return Response({"next": following, "results": self.get_serializer(shown, many=True).data})

    @action(detail=False, methods=["get"])
    def export(self, request: Request) -> HttpResponseBase:
        """Download every event that matches, as CSV or JSON Lines."""
        wanted = EventExport.parse_query(request.query_params)
        return stream_events(wanted.select(), wanted.format)

    @action(detail=False, methods=["get"])
    def evidence(self, request: Request) -> HttpResponseBase:
        """Download every event that the log holds, with what shows that it does."""
        after = int(EvidenceQuery.parse_query(request.query_params).after)
        lines = write_evidence(after, settings.PATHS.log)
        first = next(lines)  # a refusal is a problem of its own, not a file that breaks off
        return StreamingHttpResponse(_whole(first, lines), content_type=_LINES)

    @action(detail=True, methods=["get"])
    def entry(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download one event as the log has it."""
        return HttpResponse(self.get_object().text.encode("utf-8"), content_type="application/json")

    @action(detail=True, methods=["get"])
    def proof(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download the proof that the log holds one event."""
        return HttpResponse(prove_event(self.get_object(), settings.PATHS.log).render(), content_type=_TEXT)


def _whole(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others

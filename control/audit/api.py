"""Receipts and alarms over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase
from pydantic import StringConstraints
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import GenericViewSet

from control.api.openapi import Spoken
from control.api.pagination import Pages
from control.audit.downloads import receipt_file, stream_receipts
from control.audit.export import Format
from control.audit.models import Alarm, ReceiptRecord
from control.audit.pseudonyms import client_names
from control.audit.search import ReceiptFilter

Decimal = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,17})$")]


class ReceiptPage(ReceiptFilter):
    """A page of the list of receipts.

    Attributes:
        after: `id` of the last receipt of the page before.
        page_size: How many, 1 to 1000.
    """

    paging: ClassVar[frozenset[str]] = frozenset()

    after: Decimal = "0"
    page_size: Annotated[str, StringConstraints(pattern=r"^(1000|[1-9][0-9]{0,2})$")] = str(Pages.page_size)


class ExportQuery(ReceiptFilter):
    """What to export, and as what."""

    paging: ClassVar[frozenset[str]] = frozenset()

    format: Format


class ReceiptShape(serializers.ModelSerializer[ReceiptRecord]):
    """A receipt in a list. `names` in the context holds clients' names by their pseudonyms."""

    node = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    client_name = serializers.SerializerMethodField()
    end = serializers.CharField(read_only=True)
    logged = serializers.SerializerMethodField()

    class Meta:
        model = ReceiptRecord
        fields: ClassVar = [
            *("id", "node", "receipt_id", "client", "client_name", "seq", "boot", "end"),
            *("verified", "logged", "place", "admitted_at"),
        ]

    def get_client_name(self, record: ReceiptRecord) -> str | None:
        """Return the client's name; None where control has no client of the pseudonym."""
        name: str | None = self.context["names"].get(record.client)
        return name

    def get_logged(self, record: ReceiptRecord) -> bool:
        """Return whether it has a place in the log."""
        return record.place is not None


class AlarmShape(serializers.ModelSerializer[Alarm]):
    """An alarm."""

    node = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = Alarm
        fields: ClassVar = ["id", "node", "kind", "subject", "count", "raised_at"]


class OneForm(BaseContentNegotiation):
    """Each address has one form of answer, whatever the client says that it accepts; `format` is a parameter of ours."""

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:  # noqa: ARG002 - DRF's signature
        """Return the only parser."""
        return next(iter(parsers))

    def select_renderer(
        self,
        request: Request,  # noqa: ARG002
        renderers: Iterable[Any],
        format_suffix: str | None = None,  # noqa: ARG002
    ) -> tuple[Any, str]:
        """Return the only renderer."""
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class ReceiptView(mixins.RetrieveModelMixin, GenericViewSet[ReceiptRecord]):
    """`/receipts`: a page of the list, `/receipts/export` all that match as a file, `/receipts/ID` one of the list,
    `/receipts/ID/signed` as clients verify it, `/proof` and `/archive` for what shows that the log holds it.
    """

    queryset = ReceiptRecord.objects.select_related("node")
    speaks: ClassVar = {
        "list": Spoken(query=ReceiptPage, answer=ReceiptShape),
        "export": Spoken(query=ExportQuery, answer="*/*"),
        "signed": Spoken(answer="application/json"),
        "proof": Spoken(answer="text/plain; charset=utf-8"),
        "archive": Spoken(answer="application/zip"),
    }
    serializer_class = ReceiptShape
    lookup_value_regex = "[0-9]{1,18}"
    content_negotiation_class = OneForm

    def get_serializer_context(self) -> dict[str, Any]:
        """Return what `ReceiptShape` needs."""
        return {**super().get_serializer_context(), "names": client_names()}

    def list(self, request: Request) -> Response:
        """Return a page. Pages follow ids, which only grow: none shifts while receipts come in."""
        page = ReceiptPage.parse_query(request.query_params)
        size = int(page.page_size)
        records = list(page.select().filter(id__gt=int(page.after))[: size + 1])
        shown = records[:size]
        url = request.build_absolute_uri()
        following = replace_query_param(url, "after", str(shown[-1].pk)) if len(records) > size else None
        return Response({"next": following, "results": self.get_serializer(shown, many=True).data})

    @action(detail=False, methods=["get"])
    def export(self, request: Request) -> HttpResponseBase:
        """Download every receipt that matches, as CSV or JSON Lines."""
        wanted = ExportQuery.parse_query(request.query_params)
        return stream_receipts(wanted.select(), wanted.format)

    @action(detail=True, methods=["get"])
    def signed(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download one receipt as a `SignedReceipt` in canonical form."""
        return receipt_file(self.get_object(), "json", settings.PATHS)

    @action(detail=True, methods=["get"])
    def proof(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download the proof that the log holds one receipt."""
        return receipt_file(self.get_object(), "tlog-proof", settings.PATHS)

    @action(detail=True, methods=["get"])
    def archive(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download one receipt with its proof and what verifies them, as a zip file."""
        return receipt_file(self.get_object(), "zip", settings.PATHS)


class AlarmView(mixins.ListModelMixin, GenericViewSet[Alarm]):
    """`/alarms`: list."""

    queryset: QuerySet[Alarm] = Alarm.objects.select_related("node")
    serializer_class = AlarmShape

"""Receipts and alarms over HTTP."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from appliance.core.names import Digest, Hex128, Name
from control.audit.models import Alarm, ReceiptRecord
from control.query import QueryFilter
from control.transparency.archive import make_archive
from control.transparency.proofs import prove


class ReceiptFilter(QueryFilter):
    """Filters of the list of receipts.

    Attributes:
        node: Name of the node.
        client: Pseudonym.
        receipt: Receipt id.
        verified: Whether the signature verified.
    """

    node: Name | None = None
    client: Digest | None = None
    receipt: Hex128 | None = None
    verified: Literal["true", "false"] | None = None


class ReceiptShape(serializers.ModelSerializer[ReceiptRecord]):
    """A receipt in a list."""

    node = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = ReceiptRecord
        fields: ClassVar = ["id", "node", "receipt_id", "client", "seq", "boot", "verified", "admitted_at"]


class AlarmShape(serializers.ModelSerializer[Alarm]):
    """An alarm."""

    node = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = Alarm
        fields: ClassVar = ["id", "node", "kind", "subject", "count", "raised_at"]


class ReceiptView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[ReceiptRecord]):
    """`/receipts`: list with filters, retrieve, `/receipts/ID/signed` for one as clients verify it, `/proof` and `/archive`
    for what shows that the log holds it.
    """

    serializer_class = ReceiptShape
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[ReceiptRecord]:
        """Return the receipts, filtered by the query string."""
        chosen = ReceiptFilter.parse_query(self.request.query_params)
        wanted = {
            "node__name": chosen.node,
            "client": chosen.client,
            "receipt_id": chosen.receipt,
            "verified": None if chosen.verified is None else chosen.verified == "true",
        }
        given = {field: value for field, value in wanted.items() if value is not None}
        return ReceiptRecord.objects.select_related("node").filter(**given)

    @action(detail=True, methods=["get"])
    def signed(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Download one receipt as a `SignedReceipt`."""
        record = self.get_object()
        headers = {"Content-Disposition": f'attachment; filename="receipt-{record.receipt_id}.json"'}
        return Response(record.signed().model_dump(mode="json"), headers=headers)

    @action(detail=True, methods=["get"])
    def proof(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download the proof that the log holds one receipt."""
        record = self.get_object()
        content = prove(record, settings.PATHS.log).render()
        return _file(f"receipt-{record.receipt_id}.tlog-proof", "text/plain; charset=utf-8", content)

    @action(detail=True, methods=["get"])
    def archive(self, request: Request, pk: str) -> HttpResponse:  # noqa: ARG002
        """Download one receipt with its proof and what verifies them, as a zip file."""
        record = self.get_object()
        return _file(
            f"receipt-{record.receipt_id}.zip", "application/zip", make_archive(record, settings.PATHS)
        )


class AlarmView(mixins.ListModelMixin, GenericViewSet[Alarm]):
    """`/alarms`: list."""

    queryset = Alarm.objects.select_related("node")
    serializer_class = AlarmShape


def _file(name: str, kind: str, content: bytes) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(content, content_type=kind, headers=headers)

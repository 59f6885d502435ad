"""Receipts: found, read, verified step by step, exported; never changed."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, get_args

from django.conf import settings
from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from pydantic import StringConstraints, ValidationError

from appliance.core.errors import ApplianceError, RefusedError
from appliance.core.receipt import End, Receipt
from control.audit.alarms import ADVICE
from control.audit.downloads import File, receipt_file, stream_receipts
from control.audit.export import Format
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.audit.pseudonyms import client_names
from control.audit.reading import UNUSUAL, describe_receipt
from control.audit.search import ReceiptFilter, search_text
from control.audit.verification import Outcome, Verification
from control.console.pages import PAGE_ROWS, page, said, show
from control.fleet.models import Node

MOST_COUNTED = 10_000  # receipts; to count a million takes longer than to show a page of them

Id = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")]
Typed = Annotated[str, StringConstraints(max_length=64)]


class ListQuery(ReceiptFilter):
    """What the list is asked for.

    Attributes:
        q: What was typed into the search field.
        before, after: The page of receipts that came before or after the one with this id.
    """

    q: Typed | None = None
    before: Id | None = None
    after: Id | None = None

    def found(self) -> QuerySet[ReceiptRecord]:
        """Return every receipt that matches.

        Raises:
            RefusedError: If there is no node or client of the name.
        """
        return self.select(search_text(self.q)) if self.q and self.q.strip() else self.select()

    def rows(self, found: QuerySet[ReceiptRecord]) -> tuple[list[ReceiptRecord], bool, bool]:
        """Return a page, the newest first, and whether there are newer and older ones.

        Pages follow ids: a page costs what it shows, however far back it is, and none shifts while receipts come in.
        """
        if self.after is not None:
            rows = list(found.filter(id__gt=int(self.after)).order_by("id")[: PAGE_ROWS + 1])
            return rows[:PAGE_ROWS][::-1], len(rows) > PAGE_ROWS, True
        newest = found if self.before is None else found.filter(id__lt=int(self.before))
        rows = list(newest.order_by("-id")[: PAGE_ROWS + 1])
        return rows[:PAGE_ROWS], self.before is not None, len(rows) > PAGE_ROWS


@page("audit.view_receiptrecord")
def listing(request: HttpRequest) -> HttpResponse:
    """List receipts, the newest first."""
    given = _given(request)
    context: dict[str, Any] = {"rows": [], "count": 0, "refused": ""}
    try:
        wanted = ListQuery.parse(given)
        found = wanted.found()
        records, newer, older = wanted.rows(found)
        context |= {
            "rows": _describe(records),
            "newer": records[0].pk if newer and records else None,
            "older": records[-1].pk if older and records else None,
            "count": found.order_by()[:MOST_COUNTED].count(),
        }
    except RefusedError as refused:
        context["refused"] = str(refused)
    filters = {name: value for name, value in given.items() if name not in ("before", "after")}
    return show(
        request,
        "receipts",
        "Receipts",
        given=filters,
        most=MOST_COUNTED,
        nodes=list(Node.objects.values_list("name", flat=True)),
        ends=[(end.value, end.value.replace("_", " ")) for end in End],
        status=400 if context["refused"] else 200,
        **context,
    )


@page("audit.view_receiptrecord")
def export(request: HttpRequest, form: str) -> HttpResponseBase:
    """Download every receipt that the list's query string finds."""
    if form not in tuple(Format):
        raise Http404
    try:
        found = ListQuery.parse(_given(request)).found()
    except RefusedError as refused:
        messages.error(request, said(refused))
        return HttpResponseRedirect(reverse("console:receipts"))
    return stream_receipts(found, Format(form))


@page("audit.view_receiptrecord")
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what a receipt says, and verify it again."""
    record = get_object_or_404(ReceiptRecord.objects.select_related("node"), pk=pk)
    client = client_names().get(record.client)
    try:
        groups = describe_receipt(record, record.signed().receipt, client)
    except RefusedError:
        groups = ()  # it was deleted, or it is not what was signed: the page says which, and shows it as it is
    steps = () if record.deleted else Verification(record, settings.PATHS, settings.CONFIG.witnesses).steps()
    alarms = Alarm.objects.filter(node=record.node, subject=record.receipt_id)
    return show(
        request,
        "receipt",
        f"Receipt {record.receipt_id[:12]}",
        ("Receipts", reverse("console:receipts")),
        record=record,
        client=client,
        groups=groups,
        steps=[(_LEVELS[step.outcome], step) for step in steps],
        valid=bool(steps) and all(step.outcome is Outcome.PASSED for step in steps),
        failed=any(step.outcome is Outcome.FAILED for step in steps),
        alarms=[ADVICE[AlarmKind(alarm.kind)] for alarm in alarms],
    )


@page("audit.view_receiptrecord")
def file(request: HttpRequest, pk: int, kind: str) -> HttpResponse:
    """Download one receipt, its proof, or both with all that verifies them."""
    record = get_object_or_404(ReceiptRecord.objects.select_related("node"), pk=pk)
    if kind not in get_args(File):
        raise Http404
    try:
        return receipt_file(record, kind, settings.PATHS)  # type: ignore[arg-type]
    except ApplianceError as error:
        messages.error(request, said(error))
        return HttpResponseRedirect(reverse("console:receipt", args=[pk]))


_LEVELS = {
    Outcome.PASSED: "good",
    Outcome.FAILED: "bad",
    Outcome.WAITING: "waiting",
    Outcome.SKIPPED: "plain",
}


def _given(request: HttpRequest) -> dict[str, str]:
    """Return what was asked for; a field of the form that was left empty asks for nothing."""
    return {
        name: value for name, value in islice(request.GET.items(), 32) if value and isinstance(value, str)
    }


def _describe(records: list[ReceiptRecord]) -> list[dict[str, Any]]:
    """Return what the list says of each receipt. One query for the names of all clients."""
    names = client_names()
    return [{"record": record, "client": names.get(record.client), **_tokens(record)} for record in records]


def _tokens(record: ReceiptRecord) -> dict[str, Any]:
    unusual = {"unusual": record.end in UNUSUAL, "end": str(record.end).replace("_", " ")}
    if record.deleted:
        return unusual
    try:
        return {**unusual, "receipt": Receipt.model_validate_json(record.text)}
    except ValidationError:
        return {**unusual, "damaged": True}

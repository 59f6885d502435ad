"""Receipts and alarms in the console: found, read, downloaded; never changed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from pydantic import ValidationError

from appliance.core.errors import ApplianceError, RefusedError
from appliance.core.receipt import Receipt
from control.audit import filters
from control.audit.alarms import ADVICE, ON_RECEIPTS
from control.audit.downloads import File, receipt_file, stream_receipts
from control.audit.export import Format
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.audit.pseudonyms import client_names
from control.audit.reading import UNUSUAL, describe_receipt
from control.audit.search import ReceiptFilter, search_text
from control.readonly import ReadOnlyAdmin

if TYPE_CHECKING:  # generic for the type checker only
    Pages = Paginator[Any]
else:
    Pages = Paginator

MOST_COUNTED = 10_000  # receipts; to count a million takes longer than to show a page of them
_LIST = "admin:audit_receiptrecord_changelist"


class CappedPaginator(Pages):
    """Pages of the first `MOST_COUNTED` rows. Who looks for more narrows the search, or exports."""

    @cached_property
    def count(self) -> int:
        """Return how many rows there are, up to the limit."""
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:MOST_COUNTED].count()


class ReceiptList(ChangeList):
    """The list, filtered by the schema that the API uses."""

    def get_queryset(
        self,
        request: HttpRequest,
        exclude_parameters: list[str | None] | None = None,  # noqa: ARG002 - Django's signature
    ) -> QuerySet[ReceiptRecord]:
        """Return the receipts of the query string, the newest first.

        Raises:
            IncorrectLookupParameters: If a parameter is unknown or malformed; the operator is told which.
        """
        self.filter_specs, self.has_filters, others, _, self.has_active_filters = self.get_filters(request)
        self.clear_all_filters_qs = self.get_query_string(remove=list(self.get_filters_params()))
        given: dict[str, Any] = dict(others)
        for spec in self.filter_specs:
            given |= spec.used_parameters
        try:
            wanted = ReceiptFilter.parse(given)
            found = wanted.select(search_text(self.query)) if self.query.strip() else wanted.select()
        except RefusedError as refused:
            messages.error(request, str(refused))
            raise IncorrectLookupParameters(str(refused)) from refused
        return found.order_by("-id")

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, with clients' names from one query."""
        super().get_results(request)
        records, names = list(self.result_list), client_names()
        for record in records:
            record.client_name = names.get(record.client)
        self.result_list = records
        self.capped = self.result_count == MOST_COUNTED


@admin.register(ReceiptRecord)
class ReceiptRecordAdmin(ReadOnlyAdmin):
    """Receipts as they were signed."""

    list_display = ("receipt", "state", "client_cell", "ended", "tokens", "admitted")
    list_filter = (
        filters.AdmittedChoice,
        filters.NodeChoice,
        filters.VerifiedChoice,
        filters.LoggedChoice,
        filters.EndChoice,
        filters.ClientChoice,
        filters.ReceiptChoice,
    )
    search_fields = ("receipt_id",)  # shows the search field; `search_text` says what it finds
    search_help_text = "The beginning of a receipt id or a pseudonym, or part of a client's name"
    sortable_by = ()
    paginator = CappedPaginator
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ("export_csv", "export_jsonl")  # of the ticked rows; all that match are a button's

    class Media:
        css: ClassVar = {"all": ("audit/console.css",)}

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:  # noqa: ARG002
        """Return our list."""
        return ReceiptList

    def get_urls(self) -> list[URLPattern]:
        """Add the downloads."""
        view = self.admin_site.admin_view
        ours = [
            path("export.<str:form>", view(self.export_view), name="audit_receiptrecord_export"),
            path("<int:pk>/receipt.<str:kind>", view(self.file_view), name="audit_receiptrecord_file"),
        ]
        return [*ours, *super().get_urls()]

    # -- the list

    @admin.display(description="Receipt")
    def receipt(self, record: ReceiptRecord) -> SafeString:
        """Its first digits, which the search finds, and where it stands in its chain."""
        where = f"no. {record.seq:,} on {record.node}"
        return format_html(
            '<code title="{}">{}</code><small>{}</small>', record.receipt_id, record.receipt_id[:12], where
        )

    @admin.display(description="State")
    def state(self, record: ReceiptRecord) -> SafeString:
        """Whether it verified and is in the log."""
        if not record.verified:
            return _badge("bad", "invalid")
        return _badge("warn", "waiting") if record.place is None else _badge("good", "logged")

    @admin.display(description="Client")
    def client_cell(self, record: ReceiptRecord) -> SafeString:
        """The client's name, or the beginning of a pseudonym that is no client's."""
        if record.client_name:
            return format_html('<span title="{}">{}</span>', record.client, record.client_name)
        return format_html('<code title="{}">{}</code>', record.client, record.client[:12])

    @admin.display(description="Ended")
    def ended(self, record: ReceiptRecord) -> SafeString:
        """Why, marked where it is unusual."""
        return _badge("warn" if record.end in UNUSUAL else "plain", record.end.replace("_", " "))

    @admin.display(description="Tokens")
    def tokens(self, record: ReceiptRecord) -> SafeString:
        """How much was read and written."""
        try:
            receipt = Receipt.model_validate_json(record.text)
        except ValidationError:
            return _badge("bad", "damaged")
        return format_html(
            "{} in<small>{} out</small>", f"{receipt.prompt_tokens:,}", f"{receipt.completion_tokens:,}"
        )

    @admin.display(description="Admitted")
    def admitted(self, record: ReceiptRecord) -> SafeString:
        """When it came to control."""
        return _moment(record.admitted_at)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list."""
        return super().changelist_view(request, {"title": "Receipts", **(extra_context or {})})

    # -- one receipt

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",  # noqa: ARG002 - Django's signature
        extra_context: Any = None,  # noqa: ARG002
    ) -> HttpResponse:
        """Show what a receipt says."""
        record = self._record(request, object_id)
        client = client_names().get(record.client)
        try:
            groups = describe_receipt(record, record.signed().receipt, client)
        except RefusedError:
            groups = ()  # the stored text is not what was signed: the page says so, and shows it as it is
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Receipt",
            "record": record,
            "client": client,
            "groups": groups,
            "alarms": _advised(Alarm.objects.filter(node=record.node, subject=record.receipt_id)),
        }
        return TemplateResponse(request, "audit/receipt.html", context)

    def file_view(self, request: HttpRequest, pk: int, kind: str) -> HttpResponse:
        """Download one receipt, its proof, or both with all that verifies them."""
        record = self._record(request, str(pk))
        if kind not in get_args(File):
            raise Http404
        try:
            return receipt_file(record, kind, settings.PATHS)  # type: ignore[arg-type]
        except ApplianceError as error:
            messages.error(request, f"{error.message}: {error.hint}" if error.hint else error.message)
            return HttpResponseRedirect(reverse("admin:audit_receiptrecord_change", args=[pk]))

    def _record(self, request: HttpRequest, pk: str) -> ReceiptRecord:
        if not self.has_view_permission(request):
            raise PermissionDenied
        record = (
            ReceiptRecord.objects.select_related("node").filter(pk=pk).first() if pk.isdecimal() else None
        )
        if record is None:
            raise Http404
        return record

    # -- many receipts

    def export_view(self, request: HttpRequest, form: str) -> HttpResponseBase:
        """Download every receipt that the list's query string finds."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in tuple(Format):
            raise Http404
        try:
            found = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseRedirect(reverse(_LIST))
        return stream_receipts(found, Format(form))

    @admin.action(permissions=["view"], description="Download the ticked receipts as CSV")
    def export_csv(self, request: HttpRequest, queryset: QuerySet[ReceiptRecord]) -> HttpResponseBase:  # noqa: ARG002
        """Download the ticked rows as a table."""
        return stream_receipts(queryset, Format.CSV)

    @admin.action(permissions=["view"], description="Download the ticked receipts as JSON Lines")
    def export_jsonl(self, request: HttpRequest, queryset: QuerySet[ReceiptRecord]) -> HttpResponseBase:  # noqa: ARG002
        """Download the ticked rows as clients verify them."""
        return stream_receipts(queryset, Format.JSONL)


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    """Alarms: what was seen, what it means, what to do."""

    list_display = ("what", "about", "times", "raised")
    list_display_links = None
    list_filter = ("kind", "node")
    list_select_related = ("node",)
    search_fields = ("subject",)
    search_help_text = "A receipt id, a position or the name of a key"
    sortable_by = ()
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css: ClassVar = {"all": ("audit/console.css",)}

    @admin.display(description="Alarm")
    def what(self, alarm: Alarm) -> SafeString:
        """The kind in words, and what to do next."""
        advice = ADVICE[AlarmKind(alarm.kind)]
        return format_html(
            '<div class="alarm"><strong>{}</strong><p>{}</p><p><b>Next:</b> {}</p></div>', *advice
        )

    @admin.display(description="About")
    def about(self, alarm: Alarm) -> SafeString:
        """The receipt, as a link; for the other kinds a position or the name of a key. And the node."""
        subject = format_html("<code>{}</code>", alarm.subject)
        if alarm.kind in ON_RECEIPTS:
            query = f"{reverse(_LIST)}?receipt={alarm.subject}"
            subject = format_html('<a href="{}"><code>{}</code></a>', query, alarm.subject[:12])
        return format_html("{}<small>{}</small>", subject, alarm.node)

    @admin.display(description="Times")
    def times(self, alarm: Alarm) -> str:
        """How often it came."""
        return "once" if alarm.count == 1 else f"{alarm.count:,} times"

    @admin.display(description="First raised")
    def raised(self, alarm: Alarm) -> SafeString:
        """When it came first."""
        return _moment(alarm.raised_at)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list."""
        return super().changelist_view(request, {"title": "Alarms", **(extra_context or {})})


def _badge(kind: str, text: str) -> SafeString:
    return format_html('<span class="badge {}">{}</span>', kind, text)


def _moment(moment: datetime) -> SafeString:
    return format_html("{}<small>{} UTC</small>", f"{moment:%Y-%m-%d}", f"{moment:%H:%M:%S}")


def _advised(alarms: QuerySet[Alarm]) -> list[dict[str, Any]]:
    return [{"alarm": alarm, "advice": ADVICE[AlarmKind(alarm.kind)]} for alarm in alarms]

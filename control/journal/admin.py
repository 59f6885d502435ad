"""Events in the console: shown, never changed."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from control.audit.admin import CappedPaginator
from control.journal.event import Source
from control.journal.models import AuditEvent
from control.journal.vocabulary import Verb
from control.readonly import ReadOnlyAdmin


class _Choice(admin.SimpleListFilter):
    """One of a closed set. Django's own filter would read every row to find out what there is."""

    choices_of: ClassVar[type[StrEnum]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return all."""
        return [(choice.value, choice.value) for choice in self.choices_of]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:  # noqa: ARG002
        """Return the events of the one that was chosen."""
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class SourceChoice(_Choice):
    """`source`."""

    title = parameter_name = "source"
    choices_of = Source


class VerbChoice(_Choice):
    """`verb`."""

    title = parameter_name = "verb"
    choices_of = Verb


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """What operators did."""

    list_display = ("number", "at", "who", "verb", "name", "changed", "logged_at")
    list_filter = (SourceChoice, VerbChoice)
    list_select_related = ("logged",)
    search_fields = ("actor", "name", "verb", "request")
    search_help_text = "Who, what, to whom, or a request's id"
    sortable_by = ()
    ordering = ("-number",)
    paginator = CappedPaginator
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = (
        "number",
        "at",
        "who",
        "source",
        "verb",
        "kind",
        "name",
        "request",
        "logged_at",
        "digest",
        "entry",
    )

    @admin.display(description="By")
    def who(self, row: AuditEvent) -> str:
        """The actor; of an API token its operator's name and its own."""
        return f"{row.actor}/{row.token}" if row.token else row.actor

    @admin.display(description="Changed")
    def changed(self, row: AuditEvent) -> str:
        """The facts that changed."""
        return ", ".join(f"{change['fact']}: {json.dumps(change['after'])}" for change in row.changes[:4])

    @admin.display(description="Place in the log")
    def logged_at(self, row: AuditEvent) -> str:
        """The place."""
        return "waiting" if row.place is None else f"{row.place:,}"

    @admin.display(description="Entry of the log")
    def entry(self, row: AuditEvent) -> SafeString:
        """The event as it is in the log."""
        return format_html('<pre class="note">{}</pre>', row.text)

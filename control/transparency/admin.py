"""The log in the console: its head, its keys, and every head that was signed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from appliance.core.names import encode_base64
from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.note import Kind, Note, VerifierKey
from control.audit.downloads import download
from control.readonly import ReadOnlyAdmin
from control.transparency.keeper import waiting, waiting_events
from control.transparency.models import CheckpointRecord

_MOST_COUNTED = 100_000  # waiting receipts
_LATE = timedelta(minutes=5)  # without a head although receipts wait; one is due each minute
_KINDS = {Kind.ED25519: "Ed25519", Kind.MLDSA44_COSIGNATURE: "ML-DSA-44"}


@admin.register(CheckpointRecord)
class CheckpointRecordAdmin(ReadOnlyAdmin):
    """Signed heads of the log."""

    list_display = ("receipts", "root", "signed")
    ordering = ("-size",)
    sortable_by = ()
    show_full_result_count = False
    fields = ("size", "signed_at", "signed_note")

    class Media:
        css: ClassVar = {"all": ("audit/console.css",)}

    def get_urls(self) -> list[URLPattern]:
        """Add the downloads."""
        view = self.admin_site.admin_view(self.file_view)
        return [path("<str:name>.file", view, name="transparency_checkpointrecord_file"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the newest head above the others."""
        context = {"title": "Log of receipts", "head": describe_head(), **(extra_context or {})}
        return super().changelist_view(request, context)

    def file_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Download the newest checkpoint, or the keys that verify it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        last = CheckpointRecord.objects.last()
        if name == "checkpoint" and last is not None:
            content = last.note.encode("utf-8")
        elif name == "log.vkey":
            content = settings.PATHS.log_keys.read_bytes()
        else:
            raise Http404
        return download(name, content, "text/plain; charset=utf-8")

    @admin.display(description="Entries in the tree")
    def receipts(self, record: CheckpointRecord) -> str:
        """The size."""
        return f"{record.size:,}"

    @admin.display(description="Root")
    def root(self, record: CheckpointRecord) -> SafeString:
        """The root's hash."""
        return format_html("<code>{}</code>", _root(record))

    @admin.display(description="Signed (UTC)")
    def signed(self, record: CheckpointRecord) -> str:
        """When."""
        return f"{record.signed_at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="Signed note")
    def signed_note(self, record: CheckpointRecord) -> SafeString:
        """The checkpoint as everybody gets it."""
        return format_html('<pre class="note">{}</pre>', record.note)


def describe_head() -> dict[str, Any]:
    """Return what an operator wants to know about the log: its newest head, what waits, its keys."""
    last = CheckpointRecord.objects.last()
    age = timezone.now() - last.signed_at if last else timedelta(0)
    count = waiting().order_by()[:_MOST_COUNTED].count() + waiting_events().order_by()[:_MOST_COUNTED].count()
    return {
        "last": last,
        "size": f"{last.size:,}" if last else "0",
        "root": _root(last) if last else "",
        "waiting": f"{count:,}",
        "age": f"{timesince(last.signed_at)} ago" if last and age >= timedelta(minutes=1) else "just now",
        "late": count > 0 and age > _LATE,
        "keys": [{"kind": _KINDS[key.kind], "name": key.name, "id": key.id.hex()} for key in _keys()],
    }


def _keys() -> list[VerifierKey]:
    return [VerifierKey.parse(line) for line in settings.PATHS.log_keys.read_text("utf-8").split()]


def _root(record: CheckpointRecord) -> str:
    return encode_base64(Checkpoint.parse(Note.parse(record.note.encode("utf-8")).text).root)

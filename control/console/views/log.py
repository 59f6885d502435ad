"""The log of receipts: its head, its keys and witnesses, where it has gaps, and every head that was signed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from appliance.transparency.checkpoint import Checkpoint, verify_cosignature
from appliance.transparency.errors import LogError
from appliance.transparency.note import Note, VerifierKey
from control.audit.downloads import download
from control.audit.models import Alarm, AlarmKind
from control.console.pages import page, paged, show
from control.transparency.admin import describe_head
from control.transparency.models import CheckpointRecord

_GAPS = (
    AlarmKind.CHAIN_GAP,
    AlarmKind.RECEIPTS_MISSING,
    AlarmKind.JOURNAL_SHRUNK,
    AlarmKind.JOURNAL_REPLACED,
)
_TEXT = "text/plain; charset=utf-8"


@page("transparency.view_checkpointrecord")
def listing(request: HttpRequest) -> HttpResponse:
    """Show the newest head above the others."""
    head = describe_head()
    return show(
        request,
        "log",
        "Log of receipts",
        head=head,
        witnesses=describe_witnesses(head["last"]),
        gaps=Alarm.objects.filter(kind__in=_GAPS).count(),
        page=paged(request, CheckpointRecord.objects.order_by("-size")),
    )


@page("transparency.view_checkpointrecord")
def detail(request: HttpRequest, size: int) -> HttpResponse:
    """Show one head as everybody gets it."""
    record = get_object_or_404(CheckpointRecord, size=size)
    title, above = f"Head of {size:,} receipts", ("Log", reverse("console:log"))
    return show(request, "checkpoint", title, above, record=record, witnesses=describe_witnesses(record))


@page("transparency.view_checkpointrecord")
def file(request: HttpRequest, name: str) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Download the newest head that may be shown, or the keys that verify it."""
    last = CheckpointRecord.settled_last()
    if name == "checkpoint" and last is not None:
        return download("checkpoint", last.note.encode("utf-8"), _TEXT)
    if name == "keys":
        return download("log.vkey", settings.PATHS.log_keys.read_bytes(), _TEXT)
    raise Http404


def describe_witnesses(record: CheckpointRecord | None) -> list[dict[str, Any]]:
    """Return who is asked to cosign heads, and whether this head was cosigned."""
    note = Note.parse(record.note.encode("utf-8")) if record else None
    return [
        {"name": key.name, "id": key.id.hex(), "cosigned": note is not None and _cosigned(note, key)}
        for key in (VerifierKey.parse(witness.key) for witness in settings.CONFIG.witnesses)
    ]


def _cosigned(note: Note, key: VerifierKey) -> bool:
    try:
        made = [signature for signature in note.signatures if signature.by(key)]
        for signature in made:
            verify_cosignature(key, Checkpoint.parse(note.text), signature)
    except LogError:
        return False
    return bool(made)

"""Receipts as downloads: for the API and the console alike."""

from __future__ import annotations

from typing import Literal

from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone

from control.audit.export import Format, write_receipts
from control.audit.models import ReceiptRecord
from control.config import ControlPaths
from control.transparency.archive import make_archive
from control.transparency.proofs import prove

File = Literal["json", "tlog-proof", "zip"]
_TYPES: dict[File, str] = {
    "json": "application/json",
    "tlog-proof": "text/plain; charset=utf-8",
    "zip": "application/zip",
}


def receipt_file(record: ReceiptRecord, kind: File, paths: ControlPaths) -> HttpResponse:
    """Answer with one receipt: as clients verify it, its proof, or both with all that verifies them.

    Raises:
        NotLoggedError: If a proof is wanted and the log does not hold the receipt yet.
        RefusedError: If its signature did not verify: the log never takes it.
        HostError: If a tile of the log is missing or damaged.
    """
    match kind:
        case "json":
            content = record.signed().canonical_bytes()
        case "tlog-proof":
            content = prove(record, paths.log).render()
        case "zip":
            content = make_archive(record, paths)
    return download(f"receipt-{record.receipt_id}.{kind}", content, _TYPES[kind])


def stream_receipts(receipts: QuerySet[ReceiptRecord], form: Format) -> StreamingHttpResponse:
    """Answer with receipts as a file that is made while it is sent."""
    name = f"receipts-{timezone.now():%Y%m%dT%H%M%SZ}.{form.value}"
    content = write_receipts(receipts, form)
    return StreamingHttpResponse(content, content_type=form.content_type, headers=_attachment(name))


def download(name: str, content: bytes, content_type: str) -> HttpResponse:
    """Answer with a file to keep."""
    return HttpResponse(content, content_type=content_type, headers=_attachment(name))


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}

"""Receipts as files: CSV for tables, JSON Lines for whoever verifies them.

Both are made piece by piece: memory does not grow with the number of receipts, and no transaction stays open between two pieces. Rows
are only ever added, so that pieces by id give each receipt once, and those that come while the export runs are left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final

from django.db.models import QuerySet
from pydantic import ValidationError

from appliance.core.errors import HostError
from appliance.core.receipt import Receipt, timestamp
from control.audit.models import DELETED, ReceiptRecord
from control.audit.pseudonyms import client_names

PIECE: Final = 1000  # receipts: about a megabyte

# Neither signature nor any other base64: a text that begins with "+" is a formula to a spreadsheet. Every column here is a number, a
# flag, a time, a name, hexadecimal digits or a word of a closed set, by schema, and none of them can begin like a formula.
COLUMNS: Final = (
    *("receipt", "node", "boot", "client", "client_name", "seq", "session", "opened_at", "ended_at", "end"),
    *("requests", "prompt_tokens", "completion_tokens", "retrieved_chunks", "corpora", "models"),
    *("appliance", "llama_cpp", "generation"),
    *("landlock_abi", "seccomp", "network", "core_dumps", "dumpable", "swap"),
    *("erased_bytes", "erase_verified", "text_erased"),
    *("prev", "digest", "key", "admitted_at", "verified", "place"),
)


class Format(StrEnum):
    """What an export looks like; also the end of its file name."""

    CSV = "csv"  # a row per receipt, flat, with a header
    JSONL = "jsonl"  # a line per receipt: the `SignedReceipt` in canonical form, as clients verify it

    @property
    def content_type(self) -> str:
        """Its media type (RFC 4180, jsonlines.org)."""
        return "text/csv; charset=utf-8; header=present" if self is Format.CSV else "application/jsonl"


def write_receipts(receipts: QuerySet[ReceiptRecord], form: Format) -> Iterator[bytes]:
    """Yield the file's bytes, a piece of receipts at a time.

    Raises:
        HostError: If a stored receipt is not a receipt any more.
    """
    if form is Format.JSONL:
        for piece in _pieces(receipts, "key", "text", "signature"):
            yield b"".join(_signed_line(*stored) for stored in piece)
        return
    names = client_names()
    yield _rows([COLUMNS])
    for piece in _pieces(receipts, "text", "digest", "key", "admitted_at", "verified", "place"):
        yield _rows(_row(names, *stored) for stored in piece)


def _pieces(receipts: QuerySet[ReceiptRecord], *columns: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the columns of the receipts that are there now, but of deleted ones. Plain values: models would cost ten times as much."""
    newest = ReceiptRecord.objects.order_by("-id").values_list("id", flat=True).first()
    rows = (
        receipts.filter(id__lte=newest or 0)
        .exclude(signature=DELETED)
        .order_by("id")
        .select_related(None)
        .values_list("id", *columns)
    )
    last = 0
    while piece := list(rows.filter(id__gt=last)[:PIECE]):
        yield [row[1:] for row in piece]
        last = piece[-1][0]


def _signed_line(key: str, text: str, signature: str) -> bytes:
    """Return the canonical form of a `SignedReceipt` and a newline, of parts that are canonical as they are stored."""
    return f'{{"key":"{key}","receipt":{text},"signature":"{signature}"}}\n'.encode()


def _rows(rows: Iterable[Iterable[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)  # RFC 4180: commas, CRLF
    return buffer.getvalue().encode("utf-8")


def _row(names: dict[str, str], text: str, digest: str, key: str, *admission: Any) -> list[str]:
    """Return the cells of a receipt, in the order of `COLUMNS`."""
    receipt = _parse(text)
    confinement, erase = receipt.confinement, receipt.erase
    admitted_at, verified, place = admission
    cells = (
        *(receipt.id, receipt.node, receipt.boot, receipt.client, names.get(receipt.client, "")),
        *(receipt.seq, receipt.session, receipt.opened_at, receipt.ended_at, receipt.end.value),
        *(receipt.requests, receipt.prompt_tokens, receipt.completion_tokens, receipt.retrieved_chunks),
        *(" ".join(receipt.corpora), " ".join(receipt.models)),
        *(receipt.runtime.appliance, receipt.runtime.llama_cpp, receipt.runtime.generation),
        *(confinement.landlock_abi, confinement.seccomp, confinement.network),
        *(confinement.core_dumps, confinement.dumpable, confinement.swap),
        *(erase.bytes, erase.verified, erase.text),
        *(receipt.prev, digest, key, timestamp(admitted_at), verified, place),
    )
    return [_cell(cell) for cell in cells]


def _cell(value: str | int | bool | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _parse(text: str) -> Receipt:
    """Read a stored receipt by its closed schema; its canonical form was checked when it came in."""
    try:
        return Receipt.model_validate_json(text)
    except ValidationError:
        raise HostError("a stored receipt is damaged", hint="restore the database from a backup") from None

"""`appliance control receipts …`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from control.audit.models import ReceiptRecord
    from control.audit.search import ReceiptFilter

_FILTERS = {
    "node": "name of a node",
    "client": "name of a client, or a pseudonym",
    "receipt": "a receipt id",
    "end": "why the session ended: one_shot, deleted, expired, disconnected, revoked, drained, failed, crashed",
    "verified": "true or false",
    "logged": "true or false: it has a place in the log",
    "from": "admitted at this time or later (2026-01-02T03:04:05Z, or a date)",
    "to": "admitted before this time",
}


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("receipts", help="list and export receipts, list alarms").add_subparsers(
        required=True, metavar="VERB"
    )
    listing = verbs.add_parser("list", help="list receipts, the newest last")
    _add_filters(listing)
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="the newest N (default: 100)")
    listing.set_defaults(handler=list_receipts)
    export = verbs.add_parser("export", help="receipts as a file: a table, or as clients verify them")
    export.add_argument("--format", required=True, choices=("csv", "jsonl"))
    export.add_argument("--out", type=Path, metavar="FILE", help="instead of standard output")
    _add_filters(export)
    export.set_defaults(handler=export_receipts)
    show = verbs.add_parser("show", help="one receipt as clients verify it")
    show.add_argument("receipt", help="its id")
    show.add_argument("--out", type=Path, metavar="FILE")
    show.set_defaults(handler=show_receipt)
    proof = verbs.add_parser("proof", help="that the log holds one receipt")
    proof.add_argument("receipt", help="its id")
    proof.add_argument("--out", type=Path, metavar="FILE")
    proof.set_defaults(handler=prove_receipt)
    archive = verbs.add_parser(
        "archive", help="one receipt with its proof and what verifies them, as a zip file"
    )
    archive.add_argument("receipt", help="its id")
    archive.add_argument("--out", type=Path, required=True, metavar="FILE")
    archive.set_defaults(handler=archive_receipt)
    verbs.add_parser("alarms", help="list alarms").set_defaults(handler=list_alarms)


def list_receipts(args: argparse.Namespace) -> dict[str, Any]:
    """List receipts."""
    from control.audit.pseudonyms import client_names

    columns = ("node__name", "receipt_id", "client", "seq", "end", "verified", "admitted_at", "place")
    newest = _filter(args).select().order_by("-id").values(*columns)[: max(1, args.limit)]
    names = client_names()
    rows = [
        {**row, "client_name": names.get(row["client"]), "logged": row["place"] is not None} for row in newest
    ]
    return {"ok": True, "receipts": rows[::-1]}


def export_receipts(args: argparse.Namespace) -> dict[str, Any]:
    """Write receipts to a file, which is complete once it is there, or to standard output."""
    from control.audit.export import Format, write_receipts

    if args.json and args.out is None:
        raise UsageError("--json would be a line of the export", hint="add --out FILE")
    pieces = write_receipts(_filter(args).select(), Format(args.format))
    if args.out is None:
        _to_standard_output(pieces)
    partial = args.out.with_name(f"{args.out.name}.partial")
    with partial.open("wb") as file:
        file.writelines(pieces)
    partial.replace(args.out)
    return {"ok": True, "file": str(args.out)}


def show_receipt(args: argparse.Namespace) -> dict[str, Any]:
    """Return a receipt as a `SignedReceipt`."""
    signed = _record(args.receipt).signed()
    if args.out is None:
        return signed.model_dump(mode="json")
    args.out.write_bytes(signed.canonical_bytes())
    return {"ok": True, "file": str(args.out)}


def prove_receipt(args: argparse.Namespace) -> dict[str, Any]:
    """Return or write the proof that the log holds a receipt."""
    from django.conf import settings

    from control.transparency.proofs import prove

    proof = prove(_record(args.receipt), settings.PATHS.log).render()
    if args.out is None:
        return {"ok": True, "proof": proof.decode("utf-8")}
    args.out.write_bytes(proof)
    return {"ok": True, "file": str(args.out)}


def archive_receipt(args: argparse.Namespace) -> dict[str, Any]:
    """Write what `make_archive` makes."""
    from django.conf import settings

    from control.transparency.archive import make_archive

    args.out.write_bytes(make_archive(_record(args.receipt), settings.PATHS))
    return {"ok": True, "file": str(args.out)}


def list_alarms(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """List alarms, with what to do about each."""
    from control.audit.alarms import ADVICE
    from control.audit.models import Alarm, AlarmKind

    columns = ("node__name", "kind", "subject", "count", "raised_at")
    rows = Alarm.objects.values(*columns)
    return {"ok": True, "alarms": [{**row, "do": ADVICE[AlarmKind(row["kind"])].do} for row in rows]}


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for name, text in _FILTERS.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=text)


def _filter(args: argparse.Namespace) -> ReceiptFilter:
    """Return the filter that the options say, by the same schema as the API's."""
    from control.audit.search import ReceiptFilter

    given = {name: getattr(args, name) for name in _FILTERS}
    return ReceiptFilter.parse({name: value for name, value in given.items() if value is not None})


def _to_standard_output(pieces: Iterable[bytes]) -> None:
    """Write and leave: nothing of ours may follow the last receipt.

    Raises:
        SystemExit: Always.
    """
    try:
        sys.stdout.buffer.writelines(pieces)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read has seen enough (`| head`); Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _record(receipt: str) -> ReceiptRecord:
    from control.audit.models import ReceiptRecord

    record = ReceiptRecord.objects.filter(receipt_id=receipt).first()
    if record is None:
        raise RefusedError("there is no receipt of this id", field="receipt")
    return record

"""`appliance control receipts …`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import RefusedError

if TYPE_CHECKING:
    from control.audit.models import ReceiptRecord


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("receipts", help="list and export receipts, list alarms").add_subparsers(
        required=True, metavar="VERB"
    )
    listing = verbs.add_parser("list", help="list receipts, the newest last")
    listing.add_argument("--node")
    listing.add_argument("--client", help="name of a client, or a pseudonym")
    listing.add_argument("--limit", type=int, default=100)
    listing.set_defaults(handler=list_receipts)
    export = verbs.add_parser("export", help="one receipt as clients verify it")
    export.add_argument("receipt", help="its id")
    export.add_argument("--out", type=Path, metavar="FILE")
    export.set_defaults(handler=export_receipt)
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
    from control.audit.models import ReceiptRecord

    receipts = ReceiptRecord.objects.order_by("-id")
    if args.node:
        receipts = receipts.filter(node__name=args.node)
    if args.client:
        receipts = receipts.filter(client=_pseudonym_of(args.client))
    columns = ("node__name", "receipt_id", "client", "seq", "verified", "admitted_at", "place")
    rows = list(receipts.values(*columns)[: max(1, args.limit)])
    return {"ok": True, "receipts": rows[::-1]}


def export_receipt(args: argparse.Namespace) -> dict[str, Any]:
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
    """List alarms."""
    from control.audit.models import Alarm

    columns = ("node__name", "kind", "subject", "count", "raised_at")
    return {"ok": True, "alarms": list(Alarm.objects.values(*columns))}


def _record(receipt: str) -> ReceiptRecord:
    from control.audit.models import ReceiptRecord

    record = ReceiptRecord.objects.filter(receipt_id=receipt).first()
    if record is None:
        raise RefusedError("there is no receipt of this id", field="receipt")
    return record


def _pseudonym_of(name: str) -> str:
    """Return the pseudonym of the client of this name, or the text itself where there is none."""
    from appliance.core.names import decode_base64
    from appliance.core.receipt import pseudonym
    from control.clients.models import Client

    client = Client.objects.filter(name=name).first()
    return name if client is None else pseudonym(decode_base64(client.pseudonym_key), client.name)

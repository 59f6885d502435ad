"""`appliance control audit …`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import UsageError

if TYPE_CHECKING:
    from appliance.transparency.checkpoint import Policy
    from control.journal.evidence import Evidence

_FILTERS = {
    "actor": "name of an operator, of a Unix user, or of a process",
    "verb": "what was done, for example client.suspend",
    "kind": "kind of what it was done to: client, device, node, pin, operator, token, bundle, log",
    "object": "its name; a device's is CLIENT/DEVICE, a token's OPERATOR/TOKEN, a pin's NAME/VERSION",
    "source": "console, api, cli or reconciler",
    "request": "id of a request, from its X-Request-Id",
    "from": "recorded at this time or later (2026-01-02T03:04:05Z, or a date)",
    "to": "recorded before this time",
}
_LOG_KEYS = "log.vkey"


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser(
        "audit", help="what operators did: list it, export it with proofs, verify an export"
    ).add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="list events, the newest last")
    for name, text in _FILTERS.items():
        listing.add_argument(f"--{name}", metavar=name.upper(), help=text)
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="the newest N (default: 100)")
    listing.set_defaults(handler=list_events)
    export = verbs.add_parser(
        "export", help="every event that the log holds, with what shows it, as JSON Lines"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE")
    export.add_argument(
        "--after", type=int, default=0, metavar="NUMBER", help="only those behind this one (default: 0)"
    )
    export.set_defaults(handler=export_events)
    verify = verbs.add_parser(
        "verify", help="check an export offline: chain, places in the log, and the log's signatures"
    )
    verify.add_argument("file", type=Path, metavar="FILE")
    verify.add_argument(
        "--log", type=Path, metavar="FILE", help=f"keys of the log; default: {_LOG_KEYS} beside FILE"
    )
    verify.add_argument(
        "--earlier",
        type=Path,
        metavar="FILE",
        help="an export that was kept from before: nothing of it may be missing or another",
    )
    verify.add_argument(
        "--witness",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="key of one that must have cosigned the log's head",
    )
    verify.set_defaults(handler=verify_export, django=False, acts=False)


def list_events(args: argparse.Namespace) -> dict[str, Any]:
    """List events."""
    from control.journal.search import EventFilter

    given = {name: getattr(args, name) for name in _FILTERS}
    wanted = EventFilter.parse({name: value for name, value in given.items() if value is not None})
    newest = list(wanted.select().order_by("-number")[: max(1, args.limit)])[::-1]
    if args.json:
        return {"ok": True, "events": [row.event().model_dump(mode="json") for row in newest]}
    columns = ("number", "at", "source", "actor", "token", "verb", "name", "place")
    return {"ok": True, "events": [{name: getattr(row, name) for name in columns} for row in newest]}


def export_events(args: argparse.Namespace) -> dict[str, Any]:
    """Write evidence to a file, which is complete once it is there."""
    from django.conf import settings

    from control.journal.proving import write_evidence

    partial = args.out.with_name(f"{args.out.name}.partial")
    with partial.open("wb") as file:
        file.writelines(write_evidence(args.after, settings.PATHS.log))
    partial.replace(args.out)
    return {"ok": True, "file": str(args.out)}


def verify_export(args: argparse.Namespace) -> dict[str, Any]:
    """Verify evidence; no database, no network."""
    policy = _policy(args.log or args.file.with_name(_LOG_KEYS), args.witness)
    earlier = _verify(args.earlier, policy) if args.earlier else None
    shown = _verify(args.file, policy, earlier)
    return {
        "ok": True,
        "first": shown.after + 1,
        "last": shown.last,
        "head": shown.head,
        "log": shown.checkpoint.origin,
        "size": shown.checkpoint.size,
    }


def _verify(path: Path, policy: Policy, earlier: Evidence | None = None) -> Evidence:
    from control.journal.evidence import MOST_LINE_BYTES, verify_evidence

    try:
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(MOST_LINE_BYTES + 1), b"")
            return verify_evidence(lines, policy, earlier)
    except OSError as error:
        raise UsageError(f"cannot read {path}") from error


def _policy(log: Path, witnesses: list[Path]) -> Policy:
    from appliance.transparency.checkpoint import Policy
    from appliance.transparency.note import VerifierKey

    try:
        keys = [VerifierKey.parse(line) for line in log.read_text("utf-8").splitlines()]
        cosigners = tuple(VerifierKey.parse(path.read_text("utf-8").strip()) for path in witnesses)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "cannot read the log's keys or a witness's", hint=f"--log FILE; {_LOG_KEYS} is in public/"
        ) from error
    if len(keys) != 2:
        raise UsageError("a log has two keys", hint="--log FILE")
    return Policy(keys[0], keys[1], cosigners, quorum=len(cosigners))

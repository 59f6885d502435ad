"""`appliance control log …`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from control.commands.reaching import add_without, frozen_log, reached_places


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser(
        "log", help="the log of receipts: its head, and that it goes on"
    ).add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("head", help="its size, and when it was signed").set_defaults(handler=show_head)
    continuation = verbs.add_parser(
        "continuation",
        help="for a client or a witness: the newest head, and that it continues an earlier size",
    )
    continuation.add_argument("--old", type=int, default=0, metavar="SIZE", help="that was seen (default: 0)")
    continuation.add_argument("--out", type=Path, required=True, metavar="FILE")
    continuation.set_defaults(handler=write_continuation)
    verbs.add_parser(
        "rotate-keys", help="give it new keys; those before them sign along until they are retired"
    ).set_defaults(handler=rotate_keys)
    verbs.add_parser("retire-keys", help="let only the new keys sign").set_defaults(handler=retire_keys)
    compare = verbs.add_parser(
        "compare", help="after a restore: go on from the newest head that was published"
    )
    _add_places(compare)
    compare.set_defaults(handler=compare_log)
    succeed = verbs.add_parser(
        "succeed", help="after a restore: begin another log, since this one cannot go on"
    )
    _add_places(succeed)
    succeed.add_argument(
        "--size", type=int, default=0, help="of the old log, where a witness or client knows it"
    )
    succeed.set_defaults(handler=succeed_log)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log", type=Path, action="append", default=[], metavar="FOLDER", help="a copy of log/"
    )
    add_without(parser)


def show_head(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """Return the newest head."""
    from control.transparency.keeper import waiting, waiting_events
    from control.transparency.models import CheckpointRecord

    last = CheckpointRecord.objects.last()
    signed_at = None if last is None else last.signed_at.isoformat(timespec="seconds")
    return {
        "ok": True,
        "size": last.size if last else 0,
        "signed_at": signed_at,
        "waiting": waiting().count() + waiting_events().count(),
    }


def write_continuation(args: argparse.Namespace) -> dict[str, Any]:
    """Write a continuation."""
    from django.conf import settings

    from control.transparency.proofs import prove_continuation

    args.out.write_bytes(prove_continuation(args.old, settings.PATHS.log).render())
    return {"ok": True, "file": str(args.out)}


def rotate_keys(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Give the log new keys."""
    from django.conf import settings
    from django.db import transaction

    from control.journal.services import record
    from control.journal.vocabulary import Verb
    from control.keyfiles import rotate_log_keys

    with transaction.atomic():
        record(Verb.LOG_ROTATE_KEYS, "keys")
        rotate_log_keys(settings.PATHS)
    return {"ok": True, "next": _RESTART}


def retire_keys(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Let only the new keys sign."""
    from django.conf import settings
    from django.db import transaction

    from control.journal.services import record
    from control.journal.vocabulary import Verb
    from control.keyfiles import retire_log_keys

    with transaction.atomic():
        record(Verb.LOG_RETIRE_KEYS, "keys")
        retire_log_keys(settings.PATHS)
    return {"ok": True, "next": _RESTART}


def compare_log(args: argparse.Namespace) -> dict[str, Any]:
    """Let a restored log go on from the newest head that anybody shows."""
    from django.conf import settings

    from control.transparency.witnesses import Witness

    config = settings.CONFIG
    left = set(args.without)
    witnesses = [witness for one in config.witnesses if (witness := Witness(one)).key.name not in left]
    log = frozen_log()
    with reached_places(args) as places:
        lost = log.compare(places, witnesses, args.without)
    return {
        "ok": True,
        "caught_up": lost,
        "next": "receipts that the database lost get their places back as nodes hand them over",
    }


def succeed_log(args: argparse.Namespace) -> dict[str, Any]:
    """Begin another log in the place of a restored one."""
    from django.conf import settings

    from control.keyfiles import replace_log_keys

    log = frozen_log()
    with reached_places(args) as places:
        size = log.succeed(places, args.size, lambda: replace_log_keys(settings.PATHS), args.without)
    return {"ok": True, "size": size, "next": _SUCCEEDED}


_SUCCEEDED = "restart the reconciler, give witnesses and clients the new public/log.vkey; proofs of before verify with the old one"
_RESTART = "restart the reconciler: it reads the keys when it starts"

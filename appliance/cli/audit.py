"""`appliance audit`: the promises, tested from outside, each with a positive control."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_SCHEDULES = 50
HELP = "Test a promise from outside, with a positive control in the same run."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    verbs = parser.add_subparsers(dest="promise", required=True, metavar="PROMISE")
    erasure = verbs.add_parser(
        "erasure", help="however a session ends, nothing of it is left in the memory of its cell (as root)"
    )
    isolation = verbs.add_parser(
        "isolation", help="what one session says changes no bit of another's logits, on random schedules"
    )
    isolation.add_argument(
        "--schedules",
        type=int,
        default=_SCHEDULES,
        metavar="N",
        help=f"how many, at least 4 (default {_SCHEDULES})",
    )
    for verb in (erasure, isolation):
        verb.add_argument(
            "model",
            type=Path,
            nargs="?",
            metavar="MODEL",
            help="a pin manifest (.json), the weights beside it; default: a synthetic model",
        )
        verb.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Audit and print."""
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from appliance.audit.erasure import audit_erasure
    from appliance.audit.isolation import audit_isolation
    from appliance.lab.synthetic_model import synthetic_manifest, write_model
    from appliance.models import PinnedModel, read_model

    console = Console(stderr=True, highlight=False)
    with TemporaryDirectory(prefix="audit-") as folder, console.status("starting") as spinner:
        if args.model is not None:
            model = read_model(args.model)
        else:
            weights = Path(folder) / "synthetic.gguf"
            write_model(weights)
            model = PinnedModel(synthetic_manifest(weights), weights)
        if args.promise == "erasure":
            report = audit_erasure(model, lambda text: spinner.update(f"{text} …"))
        else:
            report = audit_isolation(
                model,
                max(4, args.schedules),
                lambda text, done, of: spinner.update(f"{text}, {done} of {of} …"),
            )
    print(json.dumps(report.json()) if args.json else "\n".join(report.lines()))
    return 0 if report.ok else 1

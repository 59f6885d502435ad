"""`appliance model`: how well and how fast a pinned model reads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from appliance.core.errors import UsageError

HELP = "Examine a pinned model: does it answer from passages, does it say when they do not hold the answer."
_SHOWN = 3  # wrong answers, for people


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    bench = verbs.add_parser("bench", help="held-out questions through llama.cpp, as figures with bounds")
    bench.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help="a pin manifest (.json), the weights beside it; default: the shipped model",
    )
    bench.add_argument("--questions", type=int, default=500, metavar="N", help="of each kind (default 500)")
    bench.add_argument("--seed", type=int, default=1, help="another seed asks other questions (default 1)")
    bench.add_argument("--threads", type=int, default=1, help="threads that compute (default 1)")
    bench.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from appliance.bench.model import measure_model
    from appliance.models import SHIPPED, read_model

    if args.questions < 1 or args.threads < 1:
        raise UsageError("--questions and --threads are at least 1")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        report, wrong = measure_model(
            read_model(args.model or SHIPPED),
            questions=args.questions,
            seed=args.seed,
            threads=args.threads,
            progress=progress,
        )
    if args.json:
        print(json.dumps(report.json()))
    else:
        print("\n".join(report.lines()))
        for answer in wrong[:_SHOWN]:
            print(f"  wrong: {answer.question}\n         {answer.reply}  (wanted: {answer.wanted})")
    return 0 if report.ok else 1

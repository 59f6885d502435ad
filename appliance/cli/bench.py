"""`appliance bench`: what the product's parts cost on this machine."""

from __future__ import annotations

import argparse
import json

HELP = "What the product's parts cost on this machine, as figures with bounds."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "part", nargs="?", default="path", choices=["path"], help="path: tunnel, TLS and NGINX before a cell"
    )
    parser.add_argument("--name", default="bench", help="name of the lab")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from rich.console import Console

    from appliance.bench.path import measure_path

    with Console(stderr=True, highlight=False).status("starting") as spinner:
        report = measure_path(args.name, lambda text: spinner.update(f"{text} …"))
    print(json.dumps(report.json()) if args.json else "\n".join(report.lines()))
    return 0 if report.ok else 1

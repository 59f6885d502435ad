"""`appliance bench`: what the product's parts cost on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

HELP = "What the product's parts cost on this machine, as figures with bounds."
_SHAPES = ("135m", "500m", "1b")
_MOST_ROUNDS = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "part",
        nargs="?",
        default="path",
        choices=["path", "serve", "receipts", "fleet", "model"],
        help="path: tunnel, TLS and NGINX before a cell; serve: our engine against llama.cpp's server; "
        "receipts: signing, admission, the log and its proofs; "
        "fleet: ten thousand devices, from control's database to the node's kernel; "
        "model: write the synthetic model that serve measures with",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    path = parser.add_argument_group("path and fleet")
    path.add_argument("--name", default="bench", help="name of the lab")
    serve = parser.add_argument_group("serve and model")
    serve.add_argument(
        "--shape", default="135m", choices=_SHAPES, help="of the synthetic model (default: 135m)"
    )
    serve.add_argument(
        "--rounds", type=_rounds, default=5, metavar="N", help="alternating rounds (default: 5)"
    )
    serve.add_argument(
        "--case", action="append", default=[], metavar="CASE", help="this one only; may be repeated"
    )
    receipts = parser.add_argument_group("receipts")
    receipts.add_argument(
        "--leaves",
        type=_leaves,
        metavar="N,…",
        help="sizes of the log (default: 10000,1000000; --full: 10000000 too). Temporary files take about 0.6 KB for "
        "each leaf, 6 GB for ten million, in TMPDIR or, where that lies in memory, in /var/tmp",
    )
    both = parser.add_argument_group("serve and receipts")
    both.add_argument("--full", action="store_true", help="also what the table does not need")
    both.add_argument("--plots", type=Path, metavar="FOLDER", help="write SVG plots there")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from rich.console import Console

    parts: dict[str, Callable[[argparse.Namespace, Console], int]] = {
        "path": _path,
        "serve": _serve,
        "receipts": _receipts,
        "fleet": _fleet,
        "model": _model,
    }
    return parts[args.part](args, Console(stderr=True, highlight=False))


def _path(args: argparse.Namespace, console: Console) -> int:
    from appliance.bench.path import measure_path

    with console.status("starting") as spinner:
        report = measure_path(args.name, lambda text: spinner.update(f"{text} …"))
    print(json.dumps(report.json()) if args.json else "\n".join(report.lines()))
    return 0 if report.ok else 1


def _fleet(args: argparse.Namespace, console: Console) -> int:
    from appliance.bench.fleet.fleet import measure_fleet

    with console.status("starting") as spinner:
        report = measure_fleet(args.name, lambda text: spinner.update(f"{text} …"))
    print(json.dumps(report.json()) if args.json else "\n".join(report.lines()))
    return 0 if report.ok else 1


def _serve(args: argparse.Namespace, console: Console) -> int:
    from appliance.bench.serve.render import render_json, render_lines, render_plots
    from appliance.bench.serve.serve import Options, measure_serve

    options = Options(args.shape, args.rounds, tuple(args.case), args.full)
    measured = measure_serve(options, lambda text: console.print(f"bench: {text}"))
    _write_plots(args.plots, render_plots(measured))
    print(json.dumps(render_json(measured)) if args.json else "\n".join(render_lines(measured)))
    return 0 if measured.report.ok else 1


def _receipts(args: argparse.Namespace, console: Console) -> int:
    from appliance.bench.receipts.receipts import FULL, USUAL, Options, measure_receipts
    from appliance.bench.receipts.render import render_json, render_plots

    options = Options(args.leaves or (FULL if args.full else USUAL))
    measured = measure_receipts(options, lambda text: console.print(f"bench: {text}"))
    _write_plots(args.plots, render_plots(measured.grown))
    print(json.dumps(render_json(measured)) if args.json else "\n".join(measured.report.lines()))
    return 0 if measured.report.ok else 1


def _model(args: argparse.Namespace, console: Console) -> int:
    from appliance.bench.shapes import SHAPES, find_or_write

    with console.status("starting") as spinner:
        path = find_or_write(SHAPES[args.shape], lambda text: spinner.update(f"{text} …"))
    print(json.dumps({"ok": True, "path": str(path), "bytes": path.stat().st_size}) if args.json else path)
    return 0


def _write_plots(folder: Path | None, plots: Mapping[str, str]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, plot in plots.items():
            (folder / name).write_text(plot, "utf-8")


def _leaves(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


def _rounds(text: str) -> int:
    rounds = int(text)
    if not 1 <= rounds <= _MOST_ROUNDS:
        raise argparse.ArgumentTypeError(f"1 to {_MOST_ROUNDS}")
    return rounds

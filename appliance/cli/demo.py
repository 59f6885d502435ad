"""`appliance demo`: see the whole product work on this machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from appliance.core.errors import HostError, UsageError

HELP = "See the whole product work: a client behind a tunnel, a stranger, a receipt, an erased session."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--local", action="store_true", help="without root and without the tunnel")
    parser.add_argument("--keep", action="store_true", help="leave the lab up afterwards")
    parser.add_argument("--name", default="demo", help="name of the lab")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Run the demo and print what was seen."""
    from rich.console import Console

    if args.local and args.keep:
        raise UsageError("--keep goes with the lab, and --local has none")
    _require_fit_host()
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as spinner:
        figures, rows, notes = _run(args, lambda text: spinner.update(f"{text} …"))
    _show(figures, rows, notes)
    ok = all(held for _, _, held in rows)
    if args.json:
        print(json.dumps({"ok": ok, **figures}))
    return 0 if ok else 1


def _require_fit_host() -> None:
    """Refuse before anything is started where cells would refuse to serve.

    Raises:
        HostError: With the first reason and what to do.
    """
    from appliance.doctor.confinement import observe_confinement
    from appliance.doctor.finding import Status
    from appliance.doctor.machine import observe_machine

    for finding in (*observe_machine(), *observe_confinement()):
        if finding.status is Status.FAIL:
            raise HostError(f"{finding.name}: {finding.value}: {finding.meaning}", hint=finding.hint)


def _run(
    args: argparse.Namespace, report: Any
) -> tuple[dict[str, Any], list[tuple[str, str, bool]], list[str]]:
    if args.local:
        from appliance.demo import local

        figures = local.run_local(report)
        return figures, local.checks(figures), local.NOT_SHOWN
    from appliance.demo import demo

    figures = demo.run_demo(args.name, report, keep=args.keep)
    return figures, demo.checks(figures), []


def _show(figures: dict[str, Any], rows: list[tuple[str, str, bool]], notes: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    console.print()
    for turn in figures["conversation"]:
        console.print(f"  [dim]{escape(turn['question'])}[/]\n  {escape(turn['answer'])}\n")
    console.print(f"[bold]model[/]    {figures['model']}", soft_wrap=True)
    console.print(f"[bold]receipt[/]  {figures['receipt']['id']}\n")
    width = max(len(promise) for promise, _, _ in rows)
    for promise, seen, held in rows:
        mark = "[green]holds [/]" if held else "[red]BROKEN[/]"
        console.print(f"  {mark}  {promise:{width}}  [dim]{escape(seen)}[/]", soft_wrap=True)
    for note in notes:
        console.print(f"  [yellow]not shown[/]  {note}", soft_wrap=True)
    console.print(f"\n[dim]{figures['seconds']} s, every figure from this run[/]")

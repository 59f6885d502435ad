"""`appliance control`: the management plane. The actions themselves are in `control.commands`."""

from __future__ import annotations

import argparse
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from control.commands import (
    aliases,
    audit,
    backup,
    clients,
    epochs,
    init,
    log,
    models,
    nodes,
    operators,
    receipts,
    services,
)

HELP = "The management plane: set it up, run it, and say what the fleet should be."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for module in (
        init,
        services,
        operators,
        clients,
        nodes,
        models,
        aliases,
        receipts,
        log,
        audit,
        backup,
        epochs,
    ):
        module.add_parsers(actions)
    for leaf in _leaves(parser):
        leaf.add_argument("--config", type=Path, metavar="FILE", help="control.json")
        leaf.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Run the action and print its result."""
    if getattr(args, "django", True):
        from control.startup import start_django

        start_django(args.config)
    result = _act(args) if getattr(args, "acts", True) else args.handler(args)
    print(json.dumps(result, default=str) if args.json else _for_people(result))
    return 0


def _act(args: argparse.Namespace) -> Any:
    """Run the action on behalf of whoever runs this process. Services act for others: in them every request says for whom."""
    from control.journal.actors import acting, unix_actor
    from control.journal.event import Source

    with acting(Source.CLI, unix_actor()):
        return args.handler(args)


def _leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not subs:
        return [parser]
    return [leaf for sub in subs for child in sub.choices.values() for leaf in _leaves(child)]


def _for_people(result: dict[str, Any]) -> str:
    """Return a list as a table, and anything else as indented JSON."""
    lists = [value for key, value in result.items() if key != "ok" and isinstance(value, list)]
    if "ok" not in result or len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
        shown = {key: value for key, value in result.items() if key != "ok"}
        return json.dumps(shown, indent=2, default=str) if shown else "done"
    return _table(lists[0]) if lists[0] else "none"


def _table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned columns under their names."""
    head = [name.replace("__", " ").replace("_", " ") for name in rows[0]]
    cells = [head, *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return os.linesep.join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "-" if value in (None, "") else str(value)

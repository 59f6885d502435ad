"""`appliance lab`: machines made of namespaces, the whole product running in them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from appliance.core.errors import UsageError

if TYPE_CHECKING:
    from appliance.lab.lab import Lab

HELP = "Machines made of network namespaces: management, a node, two clients and a stranger, all real."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, line in (
        ("up", "bring everything up: control, a node, two clients with their tunnels"),
        ("down", "end it and leave nothing behind"),
        ("status", "what is running"),
    ):
        sub = verbs.add_parser(name, help=line)
        sub.add_argument("--name", default="lab", help="several labs can be up at once")
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    execute = verbs.add_parser(
        "exec", help="run a command in a machine: appliance lab exec acme -- ip address"
    )
    execute.add_argument("--name", default="lab")
    execute.add_argument("machine")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    from appliance.lab import lab

    if args.action == "up":
        return _up(args)
    if args.action == "exec":
        return _exec(lab.find(args.name), args.machine, [word for word in args.command if word != "--"])
    if args.action == "down":
        found = lab.down(args.name)
        _say(args, {"ok": True, "was_up": found}, "Down." if found else "There was no lab of this name.")
        return 0
    status = _status(lab.find(args.name))
    lines = [f"{m['name']:9} pid {m['pid']:<8} {m['processes']} processes" for m in status["machines"]]
    _say(args, {"ok": True, **status}, "\n".join([*lines, f"model    {status['pin_id']}"]))
    return 0


def _up(args: argparse.Namespace) -> int:
    from rich.console import Console

    from appliance.lab import lab

    started = time.monotonic()
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as spinner:
        up = lab.up(args.name, lambda text: spinner.update(f"{text} …"))
    seconds = round(time.monotonic() - started, 1)
    text = (
        f"Up after {seconds} s. Try:\n"
        f'  appliance lab exec acme -- appliance client chat --dir {lab.CLIENT_FOLDER}/laptop "Hello"\n'
        "  appliance lab exec node-a -- appliance node observe\n"
        "  appliance lab down"
    )
    _say(args, {"ok": True, "seconds": seconds, **_status(up)}, text)
    return 0


def _status(lab: Lab) -> dict[str, Any]:
    machines = [
        {"name": m.name, "pid": m.pid, "processes": len(m.processes())} for m in lab.machines.values()
    ]
    return {"machines": machines, "pin_id": lab.pin_id}


def _exec(lab: Lab, name: str, command: list[str]) -> NoReturn:
    if name not in lab.machines:
        raise UsageError(f"no machine {name}", hint="one of " + ", ".join(lab.machines))
    if not command:
        raise UsageError("no command", hint=f"appliance lab exec {name} -- ip address")
    argv = lab.machines[name].argv(command)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - an argv list; the point is to become the command


def _say(args: argparse.Namespace, value: dict[str, object], text: str) -> None:
    print(json.dumps(value) if args.json else text)

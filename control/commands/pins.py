"""`appliance control pin …`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("pin", help="pin and list models").add_subparsers(
        required=True, metavar="VERB"
    )
    add = verbs.add_parser("add", help="verify a model's files against its manifest and pin it")
    add.add_argument("file", type=Path, help="its first file; others lie beside it")
    add.add_argument("manifest", type=Path)
    add.add_argument("--replace", action="store_true", help="in place of the active pin of this name")
    add.set_defaults(handler=add_pin)
    verbs.add_parser("list", help="list pins").set_defaults(handler=list_pins)


def add_pin(args: argparse.Namespace) -> dict[str, Any]:
    """Pin a model."""
    from control.commands.clients import read_json
    from control.pins import services

    wanted = {
        "manifest": read_json(args.manifest),
        "file": str(args.file.absolute()),
        "replace": args.replace,
    }
    pin = services.add_pin(services.NewPin.parse(wanted))
    return {"ok": True, "name": pin.name, "version": pin.version, "pin_id": pin.pin_id}


def list_pins(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """List pins."""
    from control.pins.models import ModelPin

    return {"ok": True, "pins": list(ModelPin.objects.values("name", "version", "state", "pin_id"))}

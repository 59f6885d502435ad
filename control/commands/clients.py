"""`appliance control client …` and `device …`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from appliance.core.errors import UsageError


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    _add_client_parsers(actions.add_parser("client", help="add, list, suspend, resume, revoke clients"))
    _add_device_parsers(actions.add_parser("device", help="add, list, revoke devices"))


def _add_client_parsers(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="create a client")
    add.add_argument("name")
    add.add_argument("--model", action="append", metavar="NAME", help="a pin it may use; default: all")
    add.add_argument("--node", help="its home; default: the only one")
    add.add_argument("--limits", type=Path, metavar="FILE", help="limits as JSON")
    add.set_defaults(handler=add_client)
    verbs.add_parser("list", help="list clients").set_defaults(handler=list_clients)
    for verb in ("suspend", "resume", "revoke"):
        sub = verbs.add_parser(verb, help=f"{verb} a client")
        sub.add_argument("name")
        sub.set_defaults(handler=change_client, verb_name=verb)


def _add_device_parsers(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="add a device; its configuration is shown once")
    add.add_argument("client")
    add.add_argument("name")
    add.add_argument("--public-key", required=True, help="made by `appliance client keygen`")
    add.add_argument("--out", type=Path, metavar="FILE", help="write the configuration there (0600)")
    add.set_defaults(handler=add_device)
    listing = verbs.add_parser("list", help="list devices")
    listing.add_argument("--client")
    listing.set_defaults(handler=list_devices)
    revoke = verbs.add_parser("revoke", help="cut a device off for good")
    revoke.add_argument("client")
    revoke.add_argument("name")
    revoke.set_defaults(handler=revoke_device)


def add_client(args: argparse.Namespace) -> dict[str, Any]:
    """Create a client."""
    from control.clients import services
    from control.clients.requests import NewClient

    wanted: dict[str, Any] = {"name": args.name, "node": args.node, "models": args.model}
    if args.limits is not None:
        wanted["limits"] = read_json(args.limits)
    client = services.create_client(NewClient.parse(wanted))
    return {"ok": True, "name": client.name, "home": client.home.name, "models": client.allowed_models}


def list_clients(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """List clients."""
    from control.clients.models import Client

    return {
        "ok": True,
        "clients": list(Client.objects.values("name", "state", "home__name", "allowed_models")),
    }


def change_client(args: argparse.Namespace) -> dict[str, Any]:
    """Suspend, resume or revoke a client."""
    from control.clients import services

    verbs = {
        "suspend": services.suspend_client,
        "resume": services.resume_client,
        "revoke": services.revoke_client,
    }
    client = services.find_client(args.name)
    verbs[args.verb_name](client)
    return {"ok": True, "name": client.name, "state": client.state}


def add_device(args: argparse.Namespace) -> dict[str, Any]:
    """Add a device; the result is its configuration, or where it was written."""
    from appliance.core.storage import write_new
    from control.clients import enrolment
    from control.clients.requests import NewDevice

    if args.out is not None and args.out.exists():
        raise UsageError("the file exists", hint="choose another --out; a configuration is not overwritten")
    wanted = {"client": args.client, "name": args.name, "public_key": args.public_key}
    configuration = enrolment.add_device(NewDevice.parse(wanted)).model_dump(mode="json")
    if args.out is None:
        return configuration
    write_new(args.out, (json.dumps(configuration, indent=2) + "\n").encode("utf-8"), 0o600)
    return {"ok": True, "file": str(args.out)}


def list_devices(args: argparse.Namespace) -> dict[str, Any]:
    """List devices, of one client or all."""
    from control.clients.models import Device
    from control.clients.status import device_statuses

    devices = Device.objects.select_related("client")
    if args.client:
        devices = devices.filter(client__name=args.client)
    told = device_statuses(devices)
    rows = devices.values("id", "client__name", "name", "state", "public_key", "index")
    return {"ok": True, "devices": [{**row, "status": told.get(row["id"])} for row in rows]}


def revoke_device(args: argparse.Namespace) -> dict[str, Any]:
    """Cut a device off for good."""
    from control.clients import services

    client = services.find_client(args.client)
    device = services.find_device(client, args.name)
    services.revoke_device(device)
    return {"ok": True, "client": client.name, "name": device.name, "state": device.state}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UsageError: If it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} as JSON") from error

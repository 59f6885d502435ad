"""`appliance control client …` and `device …`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.core.errors import UsageError

_AHEAD = re.compile(r"([0-9]{1,5})([dh])")
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1)}
_WHEN = "90d, 12h, or a date and time as 2027-01-31T00:00:00Z"


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    _add_client_parsers(actions.add_parser("client", help="add, list, suspend, resume, revoke clients"))
    _add_device_parsers(actions.add_parser("device", help="add, list, revoke devices"))
    _add_invitation_parsers(
        actions.add_parser("invitation", help="create, list, approve, cancel invitations to enrol a device")
    )


def _add_client_parsers(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="create a client")
    add.add_argument("name")
    add.add_argument("--model", action="append", metavar="NAME", help="a pin it may use; default: all")
    add.add_argument("--node", help="its home; default: the only one")
    add.add_argument("--limits", type=Path, metavar="FILE", help="limits as JSON")
    add.add_argument("--expires", metavar="WHEN", help=f"when it ends: {_WHEN}; default: never")
    add.set_defaults(handler=add_client)
    limit = verbs.add_parser("limit", help="give a client other limits")
    limit.add_argument("name")
    limit.add_argument("limits", type=Path, metavar="FILE", help="all of them, as JSON")
    limit.set_defaults(handler=limit_client)
    expire = verbs.add_parser("expire", help="say when a client ends with all its devices")
    expire.add_argument("name")
    expire.add_argument("when", metavar="WHEN", help=f"{_WHEN}, or never")
    expire.set_defaults(handler=expire_client)
    verbs.add_parser("list", help="list clients").set_defaults(handler=list_clients)
    for verb in ("suspend", "resume", "revoke"):
        sub = verbs.add_parser(verb, help=f"{verb} a client")
        sub.add_argument("name")
        sub.set_defaults(handler=change_client, verb_name=verb)


def _add_device_parsers(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="add a device; its configuration is shown once")
    add.set_defaults(handler=add_device)
    rotate = verbs.add_parser("rotate", help="add another key for a device; the one it has works for a while")
    rotate.add_argument(
        "--overlap", type=int, default=168, metavar="HOURS", help="for how long (default: %(default)s)"
    )
    rotate.set_defaults(handler=rotate_device)
    for made in (add, rotate):
        made.add_argument("client")
        made.add_argument("name")
        made.add_argument("--public-key", required=True, help="made by `appliance client keygen`")
        made.add_argument("--expires", metavar="WHEN", help=f"when the key ends: {_WHEN}; default: never")
        made.add_argument("--out", type=Path, metavar="FILE", help="write the configuration there (0600)")
    expire = verbs.add_parser("expire", help="say when a device's key ends")
    expire.add_argument("client")
    expire.add_argument("name")
    expire.add_argument("when", metavar="WHEN", help=f"{_WHEN}, or never")
    expire.set_defaults(handler=expire_device)
    listing = verbs.add_parser("list", help="list devices")
    listing.add_argument("--client")
    listing.set_defaults(handler=list_devices)
    revoke = verbs.add_parser("revoke", help="cut a device off for good")
    revoke.add_argument("client")
    revoke.add_argument("name")
    revoke.set_defaults(handler=revoke_device)


def _add_invitation_parsers(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    create = verbs.add_parser("create", help="invite a device; the invitation is shown once")
    create.add_argument("client")
    create.add_argument("device", help="name of the device that will be")
    create.add_argument(
        "--hours", type=int, default=24, help="how long it can be redeemed, 1 to 168 (default: 24)"
    )
    create.add_argument(
        "--approval", action="store_true", help="let its key in only after `invitation approve`"
    )
    create.add_argument("--out", type=Path, metavar="FILE", help="write the invitation there (0600)")
    create.add_argument("--qr", action="store_true", help="show it as a QR code on standard error, too")
    create.set_defaults(handler=create_invitation)
    listing = verbs.add_parser("list", help="list invitations, the newest first")
    listing.add_argument("--client")
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="the newest N (default: 100)")
    listing.set_defaults(handler=list_invitations)
    for verb, line in (
        ("approve", "let the key in whose fingerprint you compared"),
        ("cancel", "end one; its throw-away peer is cut off at once"),
    ):
        sub = verbs.add_parser(verb, help=line)
        sub.add_argument("id", type=int)
        sub.set_defaults(handler=change_invitation, verb_name=verb)


def add_client(args: argparse.Namespace) -> dict[str, Any]:
    """Create a client."""
    from control.clients import services
    from control.clients.requests import NewClient

    wanted: dict[str, Any] = {"name": args.name, "node": args.node, "models": args.model}
    wanted["expires_at"] = parse_when(args.expires)
    if args.limits is not None:
        wanted["limits"] = read_json(args.limits)
    client = services.create_client(NewClient.parse(wanted))
    return {"ok": True, "name": client.name, "home": client.home.name, "models": client.allowed_models}


def list_clients(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """List clients, and say of those that end soon when."""
    from django.utils import timezone

    from control.clients.expiry import warn
    from control.clients.models import Client

    now = timezone.now()
    clients = list(Client.objects.values("name", "state", "home__name", "allowed_models", "expires_at"))
    return {
        "ok": True,
        "clients": [{**client, "warning": warn(client["expires_at"], now)} for client in clients],
    }


def limit_client(args: argparse.Namespace) -> dict[str, Any]:
    """Give a client other limits."""
    from appliance.core.bundle import Limits
    from control.clients import services

    client = services.find_client(args.name)
    services.limit_client(client, Limits.parse(read_json(args.limits)))
    return {"ok": True, "name": client.name, "limits": client.limits}


def expire_client(args: argparse.Namespace) -> dict[str, Any]:
    """Say when a client ends."""
    from control.clients import services
    from control.clients.requests import Expiry

    client = services.find_client(args.name)
    services.expire_client(client, Expiry.parse({"expires_at": parse_when(args.when)}).expires_at)
    return {"ok": True, "name": client.name, "expires_at": client.expires_at}


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
    from control.clients import enrolment
    from control.clients.requests import NewDevice

    _verify_free(args.out)
    wanted = {"client": args.client, "name": args.name, "public_key": args.public_key}
    new = NewDevice.parse({**wanted, "expires_at": parse_when(args.expires)})
    return _hand_over(enrolment.add_device(new).model_dump(mode="json"), args.out)


def rotate_device(args: argparse.Namespace) -> dict[str, Any]:
    """Add another key for a device; the result is as `add_device`."""
    from control.clients import rotation, services
    from control.clients.requests import Rotation

    _verify_free(args.out)
    device = services.find_device(services.find_client(args.client), args.name)
    wanted = {"public_key": args.public_key, "overlap_h": args.overlap}
    asked = Rotation.parse({**wanted, "expires_at": parse_when(args.expires)})
    return _hand_over(rotation.rotate_device(device, asked).model_dump(mode="json"), args.out)


def expire_device(args: argparse.Namespace) -> dict[str, Any]:
    """Say when a device's key ends."""
    from control.clients import services
    from control.clients.requests import Expiry

    device = services.find_device(services.find_client(args.client), args.name)
    services.expire_device(device, Expiry.parse({"expires_at": parse_when(args.when)}).expires_at)
    return {"ok": True, "client": args.client, "name": device.name, "expires_at": device.expires_at}


def _verify_free(out: Path | None) -> None:
    """Check before anything is made: a configuration is shown once."""
    if out is not None and out.exists():
        raise UsageError("the file exists", hint="choose another --out; a configuration is not overwritten")


def _hand_over(configuration: dict[str, Any], out: Path | None) -> dict[str, Any]:
    from appliance.core.storage import write_new

    if out is None:
        return configuration
    write_new(out, (json.dumps(configuration, indent=2) + "\n").encode("utf-8"), 0o600)
    return {"ok": True, "file": str(out)}


def list_devices(args: argparse.Namespace) -> dict[str, Any]:
    """List devices, of one client or all, and say of keys that end soon when."""
    from django.utils import timezone

    from control.clients.expiry import earliest, warn
    from control.clients.models import Device
    from control.clients.status import device_statuses

    now = timezone.now()
    devices = Device.objects.select_related("client")
    if args.client:
        devices = devices.filter(client__name=args.client)
    told = device_statuses(devices)
    rows = devices.values(
        "id", "client__name", "name", "state", "public_key", "index", "expires_at", "client__expires_at"
    )
    listed: list[dict[str, Any]] = [{**row, "status": told.get(row["id"])} for row in rows]
    for row in listed:
        row["warning"] = warn(earliest(row["expires_at"], row.pop("client__expires_at")), now)
    return {"ok": True, "devices": listed}


def revoke_device(args: argparse.Namespace) -> dict[str, Any]:
    """Cut a device off for good."""
    from control.clients import services

    client = services.find_client(args.client)
    device = services.find_device(client, args.name)
    services.revoke_device(device)
    return {"ok": True, "client": client.name, "name": device.name, "state": device.state}


def parse_when(text: str | None) -> str | None:
    """Return a time that somebody typed as RFC 3339: so many days or hours from now, or as it is; None for `never` and nothing."""
    if text is None or text == "never":
        return None
    ahead = _AHEAD.fullmatch(text)
    if ahead is None:
        return text  # the request's schema says whether it is a time
    return (datetime.now(UTC) + int(ahead[1]) * _UNITS[ahead[2]]).isoformat(timespec="seconds")


def create_invitation(args: argparse.Namespace) -> dict[str, Any]:
    """Invite a device; the result is the ticket, or where it was written."""
    from appliance.core.storage import write_new
    from control.clients import invitations
    from control.clients.requests import NewInvitation

    if args.out is not None and args.out.exists():
        raise UsageError("the file exists", hint="choose another --out; an invitation is not overwritten")
    wanted = {"client": args.client, "device": args.device, "hours": args.hours, "approval": args.approval}
    shown = invitations.invite(NewInvitation.parse(wanted))
    if args.qr:
        print(invitations.render_terminal(shown.invitation), file=sys.stderr)
    told: dict[str, Any] = {"ok": True, "id": shown.id, "expires_at": shown.expires_at}
    if args.out is None:
        return {**told, "invitation": shown.invitation}
    write_new(args.out, f"{shown.invitation}\n".encode("ascii"), 0o600)
    return {**told, "file": str(args.out)}


def list_invitations(args: argparse.Namespace) -> dict[str, Any]:
    """List invitations, of one client or all."""
    from control.clients.models import Invitation

    invitations = Invitation.objects.select_related("client")
    if args.client:
        invitations = invitations.filter(client__name=args.client)
    rows = [
        {
            "id": one.pk,
            "client": one.client.name,
            "device": one.device_name,
            "state": one.state,
            "fingerprint": one.fingerprint,
            "expires_at": one.expires_at,
            "ended_at": one.ended_at,
        }
        for one in invitations[: max(1, args.limit)]
    ]
    return {"ok": True, "invitations": rows}


def change_invitation(args: argparse.Namespace) -> dict[str, Any]:
    """Approve or cancel an invitation."""
    from control.clients import invitations

    verbs = {"approve": invitations.approve_invitation, "cancel": invitations.cancel_invitation}
    invitation = invitations.find_invitation(args.id)
    verbs[args.verb_name](invitation)
    return {"ok": True, "id": invitation.pk, "state": invitation.state, "fingerprint": invitation.fingerprint}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UsageError: If it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} as JSON") from error

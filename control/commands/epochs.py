"""`appliance control epoch …`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from appliance.core.errors import RefusedError
from control.commands.reaching import add_without, ask_all, reached_nodes


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("epoch", help="after a restore: let nodes take bundles again").add_subparsers(
        required=True, metavar="VERB"
    )
    verbs.add_parser("show", help="the epoch, and whether it must be raised").set_defaults(handler=show_epoch)
    up = verbs.add_parser("raise", help="raise it with the restore key from the safe")
    up.add_argument("--restore-key", type=Path, required=True, metavar="FILE")
    up.add_argument(
        "--missing",
        choices=("revoke", "keep"),
        help="what becomes of devices that are active in the backup and that no node lets in",
    )
    add_without(up)
    up.set_defaults(handler=raise_epoch)


def show_epoch(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """Say in which epoch control is."""
    from django.conf import settings

    from control.backup.restored import read_restored
    from control.fleet.models import current_epoch

    restored, epoch = read_restored(settings.PATHS), current_epoch()
    return {
        "ok": True,
        "epoch": epoch,
        "restored_from": restored.taken_at if restored else None,
        "must_be_raised": restored is not None and epoch <= restored.epoch,
    }


def raise_epoch(args: argparse.Namespace) -> dict[str, Any]:
    """Ask every node where it is, then raise the epoch above all of them."""
    from django.conf import settings

    from appliance.core.signing import read_private_key
    from control.backup import epochs
    from control.backup.restored import read_restored
    from control.clients.services import revoke_device

    paths = settings.PATHS
    key = read_private_key(args.restore_key)
    epochs.verify_restore_key(key, paths)
    restored = epochs.verify_due(read_restored(paths))
    with reached_nodes(args.without) as nodes:
        met = ask_all(nodes, epochs.meet)
    missing = epochs.find_missing(met, restored)
    if missing and args.missing is None:
        named = ", ".join(f"{device.client.name}/{device.name}" for device in missing[:_SHOWN])
        raise RefusedError(
            f"{len(missing)} devices of the backup are let in by no node, so they were revoked since: {named}",
            field="missing",
            hint="--missing revoke cuts them off for good; --missing keep lets them in again",
        )
    for device in missing if args.missing == "revoke" else ():
        revoke_device(device)
    bundle_key = (paths.public / "bundle.pub").read_text("ascii").strip()
    highest = max((said.epoch for said in met.values()), default=0)
    epoch = epochs.raise_epoch(key, bundle_key, highest)
    return {"ok": True, "epoch": epoch, "revoked": len(missing) if args.missing == "revoke" else 0}


_SHOWN = 5

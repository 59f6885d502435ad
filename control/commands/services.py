"""`appliance control migrate`, `check`, `serve`, `reconcile`."""

from __future__ import annotations

import argparse
from typing import Any


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    actions.add_parser("migrate", help="make or upgrade the database").set_defaults(handler=migrate)
    actions.add_parser("check", help="deployment checks; fails on any warning").set_defaults(handler=check)
    actions.add_parser("serve", help="the console and the API (a service)").set_defaults(
        handler=serve, acts=False
    )
    reconcile = actions.add_parser("reconcile", help="bring every node to its desired state (a service)")
    reconcile.add_argument("--once", action="store_true", help="one pass over every node, then exit")
    reconcile.set_defaults(handler=run_reconciler, acts=False)


def migrate(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """Make or upgrade the database."""
    from django.core.management import call_command

    from control.startup import verify_database

    call_command("migrate", interactive=False, verbosity=0)
    verify_database()
    return {"ok": True}


def check(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Check that this control may be deployed."""
    from control.startup import verify_deployment

    verify_deployment()
    return {"ok": True}


def serve(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Serve until a signal."""
    from control.server import serve_forever
    from control.startup import verify_deployment

    verify_deployment()
    serve_forever()
    return {"ok": True}


def run_reconciler(args: argparse.Namespace) -> dict[str, Any]:
    """Reconcile until a signal, or once."""
    from control.reconciler.service import Reconciler
    from control.startup import verify_database

    verify_database()
    reconciler = Reconciler.from_settings()
    if args.once:
        return {"ok": True, "nodes": reconciler.pass_once()}
    reconciler.run_until_signal()
    return {"ok": True}

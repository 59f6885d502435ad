"""`appliance control create-operator` and `token create`."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from appliance.core.errors import UsageError


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    create = actions.add_parser("create-operator", help="create an operator of the console and the API")
    create.add_argument("name")
    how = create.add_mutually_exclusive_group()
    how.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    how.add_argument("--no-password", action="store_true", help="tokens only")
    create.set_defaults(handler=create_operator)
    verbs = actions.add_parser("token", help="API tokens").add_subparsers(required=True, metavar="VERB")
    token = verbs.add_parser("create", help="create a token; it is shown once")
    token.add_argument("operator")
    token.add_argument("name")
    token.add_argument("--days", type=int, default=90)
    token.set_defaults(handler=create_token)


def create_operator(args: argparse.Namespace) -> dict[str, Any]:
    """Create an operator."""
    from control.operators import services

    user = services.create_operator(services.NewOperator.parse({"name": args.name}), _password(args))
    return {"ok": True, "name": user.get_username()}


def create_token(args: argparse.Namespace) -> dict[str, Any]:
    """Create a token."""
    from control.operators import services

    wanted = {"operator": args.operator, "name": args.name, "days": args.days}
    return {"ok": True, "token": services.create_token(services.NewToken.parse(wanted))}


def _password(args: argparse.Namespace) -> str | None:
    if args.no_password:
        return None
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask on", hint="--password-stdin or --no-password")
    return getpass.getpass("Password: ")

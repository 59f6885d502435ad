"""`appliance control operator …` and `token …`."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from appliance.core.errors import UsageError

ROLES = ("monitor", "viewer", "operator", "auditor", "administrator")


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("operator", help="who may use the console and the API").add_subparsers(
        required=True, metavar="VERB"
    )
    add = verbs.add_parser("add", help="create an operator")
    add.add_argument("name")
    add.add_argument("--role", choices=ROLES, default="operator", help=f"default: %(default)s; {_ROLES_HELP}")
    how = add.add_mutually_exclusive_group()
    how.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    how.add_argument("--no-password", action="store_true", help="tokens only")
    add.set_defaults(handler=add_operator)
    verbs.add_parser("list", help="all operators").set_defaults(handler=list_operators)
    role = verbs.add_parser("role", help="give an operator another role")
    role.add_argument("name")
    role.add_argument("role", choices=ROLES)
    role.set_defaults(handler=give_role)
    out = verbs.add_parser("sign-out", help="end all sessions of an operator")
    out.add_argument("name")
    out.set_defaults(handler=sign_out)
    reset = verbs.add_parser(
        "reset-factor", help="an operator who lost every second factor sets up a new one"
    )
    reset.add_argument("name")
    reset.set_defaults(handler=reset_factor)
    disable = verbs.add_parser("disable", help="end an operator's tokens and sessions, for good")
    disable.add_argument("name")
    disable.set_defaults(handler=disable_operator)

    verbs = actions.add_parser("token", help="API tokens").add_subparsers(required=True, metavar="VERB")
    token = verbs.add_parser("create", help="create a token; it is shown once")
    token.add_argument("operator")
    token.add_argument("name")
    token.add_argument("--days", type=int, default=90, help="how long it lives (default: %(default)s)")
    token.add_argument(
        "--role", choices=ROLES, help="what it may do at most (default: what its operator may)"
    )
    token.add_argument(
        "--from",
        dest="networks",
        action="append",
        default=[],
        metavar="CIDR",
        help="where it may come from; may be repeated (default: anywhere)",
    )
    token.set_defaults(handler=create_token)
    verbs.add_parser("list", help="all tokens, without their texts").set_defaults(handler=list_tokens)
    revoke = verbs.add_parser("revoke", help="end a token")
    revoke.add_argument("operator")
    revoke.add_argument("name")
    revoke.set_defaults(handler=revoke_token)


_ROLES_HELP = (
    "a monitor reads /metrics alone, a viewer sees clients, devices, nodes, models and alarms, an operator changes them and sees receipts, an auditor sees "
    "everything and changes nothing, an administrator may do everything"
)


def add_operator(args: argparse.Namespace) -> dict[str, Any]:
    """Create an operator."""
    from control.operators import services

    wanted = services.NewOperator.parse({"name": args.name, "role": args.role})
    services.create_operator(wanted, _password(args))
    return {"ok": True, "name": args.name, "role": args.role}


def list_operators(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """Return all operators."""
    from django.contrib.auth.models import User

    from control.operators.services import operator_facts

    users = User.objects.select_related("operator").order_by("username")
    return {"ok": True, "operators": [operator_facts(user) for user in users]}


def give_role(args: argparse.Namespace) -> dict[str, Any]:
    """Give an operator another role."""
    from control.operators import services
    from control.operators.roles import Role

    services.give_role(args.name, Role(args.role))
    return {"ok": True, "name": args.name, "role": args.role}


def sign_out(args: argparse.Namespace) -> dict[str, Any]:
    """End all sessions of an operator."""
    from control.operators import services

    services.sign_out(args.name)
    return {"ok": True, "name": args.name}


def reset_factor(args: argparse.Namespace) -> dict[str, Any]:
    """Forget an operator's second factors."""
    from control.operators import services

    services.reset_factor(args.name)
    return {"ok": True, "name": args.name}


def disable_operator(args: argparse.Namespace) -> dict[str, Any]:
    """Disable an operator."""
    from control.operators import services

    services.disable_operator(args.name)
    return {"ok": True, "name": args.name}


def create_token(args: argparse.Namespace) -> dict[str, Any]:
    """Create a token."""
    from control.operators import services

    wanted = {
        "operator": args.operator,
        "name": args.name,
        "days": args.days,
        "role": args.role,
        "networks": args.networks,
    }
    return {"ok": True, "token": services.create_token(services.NewToken.parse(wanted))}


def list_tokens(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    """Return all tokens."""
    from control.operators.models import ApiToken

    tokens = [
        {
            "operator": token.operator.get_username(),
            "name": token.name,
            "role": token.role or None,
            "networks": token.networks,
            "expires_at": token.expires_at,
        }
        for token in ApiToken.objects.select_related("operator")
    ]
    return {"ok": True, "tokens": tokens}


def revoke_token(args: argparse.Namespace) -> dict[str, Any]:
    """End a token."""
    from control.operators import services

    services.revoke_token(args.operator, args.name)
    return {"ok": True, "name": args.name}


def _password(args: argparse.Namespace) -> str | None:
    if args.no_password:
        return None
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask on", hint="--password-stdin or --no-password")
    return getpass.getpass("Password: ")

"""`appliance control alias …`."""

from __future__ import annotations

import argparse
from typing import Any


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("alias", help="what clients call their models").add_subparsers(
        required=True, metavar="VERB"
    )
    give = verbs.add_parser("set", help="let an alias of a client name a model")
    give.add_argument("client")
    give.add_argument("alias", help="for example chat; `default` also decides which model its cell loads")
    give.add_argument("model")
    give.set_defaults(handler=set_alias)
    remove = verbs.add_parser("remove", help="take an alias away")
    remove.add_argument("client")
    remove.add_argument("alias")
    remove.set_defaults(handler=remove_alias)
    listing = verbs.add_parser("list", help="list aliases")
    listing.add_argument("--client")
    listing.set_defaults(handler=list_aliases)


def set_alias(args: argparse.Namespace) -> dict[str, Any]:
    """Set an alias."""
    from control.pins import aliases

    wanted = {"client": args.client, "alias": args.alias, "model": args.model}
    aliases.set_alias(aliases.NewAlias.parse(wanted))
    return {"ok": True, **wanted}


def remove_alias(args: argparse.Namespace) -> dict[str, Any]:
    """Remove an alias."""
    from control.pins import aliases

    aliases.remove_alias(aliases.find_alias(args.client, args.alias))
    return {"ok": True, "client": args.client, "alias": args.alias}


def list_aliases(args: argparse.Namespace) -> dict[str, Any]:
    """List aliases, of one client or all."""
    from control.pins.models import ClientAlias

    aliases = ClientAlias.objects.values("client__name", "alias", "model")
    if args.client:
        aliases = aliases.filter(client__name=args.client)
    return {"ok": True, "aliases": list(aliases)}

"""`appliance control node …`."""

from __future__ import annotations

import argparse
from typing import Any

_TEXTS = ("address", "user", "host-key", "endpoint", "address4", "address6", "network4", "network6")


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("node", help="add, list, show nodes").add_subparsers(
        required=True, metavar="VERB"
    )
    add = verbs.add_parser("add", help="add a node that was provisioned (ansible/)")
    add.add_argument("name")
    for text in _TEXTS:
        add.add_argument(f"--{text}", required=True)
    add.add_argument("--port", type=int, default=22, help="of sshd")
    add.add_argument("--listen-port", type=int, help="of WireGuard, where it is not the endpoint's")
    add.add_argument("--seats", type=int, default=1)
    add.add_argument("--mtu", type=int, default=1420)
    add.set_defaults(handler=add_node)
    verbs.add_parser("list", help="list nodes").set_defaults(handler=list_nodes)
    show = verbs.add_parser("show", help="show a node with its health")
    show.add_argument("name")
    show.set_defaults(handler=show_node)


def add_node(args: argparse.Namespace) -> dict[str, Any]:
    """Add a node."""
    from control.fleet import services
    from control.fleet.requests import NewNode

    texts = [text.replace("-", "_") for text in _TEXTS]
    names = ["name", *texts, "port", "listen_port", "seats", "mtu"]
    node = services.add_node(NewNode.parse({name: getattr(args, name) for name in names}))
    return {"ok": True, "name": node.name}


def list_nodes(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """List nodes."""
    from control.fleet.models import Node

    nodes = Node.objects.values("name", "address", "endpoint", "seats", "last_seen_at", "last_error")
    return {"ok": True, "nodes": list(nodes)}


def show_node(args: argparse.Namespace) -> dict[str, Any]:
    """Show a node."""
    from control.fleet import services
    from control.fleet.api import NodeShape

    node = services.find_node(args.name, field="name")
    bundle = node.bundles.last()
    last = None
    if bundle is not None:
        last = {
            "epoch": bundle.epoch,
            "generation": bundle.generation,
            "digest": bundle.digest,
            "accepted_at": bundle.accepted_at,
        }
    return {"ok": True, **NodeShape(node).data, "bundle": last}

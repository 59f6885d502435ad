"""`appliance control node …`."""

from __future__ import annotations

import argparse
import os
import pwd
import time
from typing import TYPE_CHECKING, Any

from appliance.core.errors import UnavailableError

if TYPE_CHECKING:
    from control.fleet.models import NodePlan

PLAN_S = 60.0  # for the pass that is under way, and the one that answers
_TEXTS = ("address", "user", "host-key", "endpoint", "address4", "address6", "network4", "network6")


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("node", help="add, show, drain nodes").add_subparsers(
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
    for verb, text in (
        ("drain", "let open sessions end, and open none"),
        ("maintenance", "drain; then send revocations alone, and raise no alarm over the node"),
        ("undrain", "serve again"),
    ):
        parser = verbs.add_parser(verb, help=text, description=text)
        parser.add_argument("name")
        parser.set_defaults(handler=set_duty, verb=verb)
    plan = verbs.add_parser("plan", help="what `apply` would do on the node, as the node says")
    plan.add_argument("name")
    plan.set_defaults(handler=plan_node)
    history = verbs.add_parser("history", help="the last bundles of a node, and what each changed")
    history.add_argument("name")
    history.set_defaults(handler=list_bundles)
    health = verbs.add_parser("health", help="the figures of a node over time")
    health.add_argument("name")
    health.add_argument("--hours", type=int, default=1, help="how far back (default: %(default)s)")
    health.set_defaults(handler=list_samples)


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

    nodes = Node.objects.values("name", "duty", "address", "endpoint", "seats", "last_seen_at", "last_error")
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


def set_duty(args: argparse.Namespace) -> dict[str, Any]:
    """Drain a node, take it into maintenance, or let it serve again."""
    from control.fleet import services
    from control.fleet.models import Duty

    duties = {"drain": Duty.DRAINED, "maintenance": Duty.MAINTENANCE, "undrain": Duty.SERVING}
    node = services.find_node(args.name, field="name")
    services.set_duty(node, duties[args.verb])
    return {"ok": True, "name": node.name, "duty": node.duty}


def plan_node(args: argparse.Namespace) -> dict[str, Any]:
    """Ask what `apply` would do, and wait for the node's answer."""
    from control.fleet import services
    from control.fleet.api import PlanShape

    node = services.find_node(args.name, field="name")
    services.ask_plan(node, _user())
    plan = _await(node.name)
    return {"ok": True, **PlanShape(plan).data}


def _user() -> str:
    """Return who runs this, as the kernel knows."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _await(name: str) -> NodePlan:
    from control.fleet import services

    deadline = time.monotonic() + PLAN_S
    while time.monotonic() < deadline:
        plan = services.find_plan(services.find_node(name))
        if plan.answered_at is not None:
            return plan
        time.sleep(0.2)
    raise UnavailableError(
        "the node did not answer", hint="does the reconciler run? appliance control node show NAME"
    )


def list_bundles(args: argparse.Namespace) -> dict[str, Any]:
    """List the last bundles of a node, the newest last."""
    from control.fleet import services

    node = services.find_node(args.name, field="name")
    columns = ("epoch", "generation", "digest", "created_at", "accepted_at", "changes")
    newest = list(node.bundles.order_by("-pk").values(*columns)[:100])
    return {"ok": True, "bundles": newest[::-1]}


def list_samples(args: argparse.Namespace) -> dict[str, Any]:
    """List the figures of a node, the newest last."""
    from datetime import timedelta

    from django.utils import timezone

    from control.fleet import services
    from control.fleet.history import HOURS_FOR, table

    node = services.find_node(args.name, field="name")
    back = min(timedelta(hours=max(1, args.hours)), HOURS_FOR)
    return {"ok": True, "samples": table(node, timezone.now() - back)}

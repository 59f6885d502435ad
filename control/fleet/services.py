"""The verbs of the fleet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError, transaction
from django.utils import timezone

from appliance.core.errors import RefusedError
from control.fleet.models import Duty, Node, NodePlan
from control.fleet.requests import NewNode, NodeChange, NodeSettings
from control.hints import hint_on_commit
from control.journal.services import created, record
from control.journal.vocabulary import Verb


def add_node(new: NewNode) -> Node:
    """Add a node; the reconciler reaches it and learns its keys.

    Raises:
        RefusedError: Naming the field: a name that is taken, an address outside its network, networks that overlap
            another node's.
    """
    _verify_networks(new)
    values = new.model_dump(mode="json", exclude={"listen_port"})
    listen_port = new.listen_port or int(new.endpoint.rpartition(":")[2])
    with transaction.atomic():
        if Node.objects.filter(name=new.name).exists():
            raise RefusedError("the name is taken", field="name")
        for node in Node.objects.all():
            _verify_apart(new, node)
        try:
            node = Node.objects.create(**values, listen_port=listen_port)
        except IntegrityError as error:
            raise RefusedError("the name was taken a moment ago", field="name") from error
        hint_on_commit()
        facts = created(address=node.address, endpoint=node.endpoint, seats=node.seats)
        record(Verb.NODE_ADD, node.name, facts)
    return node


def find_node(name: str, field: str = "node") -> Node:
    """Return the node of this name.

    Raises:
        RefusedError: If there is none.
    """
    node = Node.objects.filter(name=name).first()
    if node is None:
        raise RefusedError(
            "there is no node of this name", field=field, hint="list them: appliance control node list"
        )
    return node


def settings_of(node: Node) -> NodeSettings:
    """Return what an operator may change of a node."""
    return NodeSettings(endpoint=node.endpoint, seats=node.seats)


@contextmanager
def changing_node(node: Node) -> Iterator[Node]:
    """Yield the node, locked against others who change it; the reconciler looks when the block has ended."""
    with transaction.atomic():
        # The row lock (SQLite: the transaction's own write lock) is what makes a tag worth comparing.
        yield Node.objects.select_for_update().get(pk=node.pk)
        hint_on_commit()


def change_settings(node: Node, change: NodeChange) -> NodeSettings:
    """Change settings of a node that is locked; return them all."""
    changes = {name: value for name, value in change.model_dump().items() if value is not None}
    before = {name: getattr(node, name) for name in changes}
    for name, value in changes.items():
        setattr(node, name, value)
    node.save(update_fields=list(changes))
    record(Verb.NODE_CHANGE, node.name, {name: (before[name], value) for name, value in changes.items()})
    return settings_of(node)


def choose_node(name: str | None) -> Node:
    """Return the named node, or the only one there is.

    Raises:
        RefusedError: If there is no such node, none at all, or more than one to choose from.
    """
    if name is not None:
        return find_node(name)
    nodes = list(Node.objects.all()[:2])
    if len(nodes) != 1:
        reason = "name one of the nodes" if nodes else "there is no node yet"
        raise RefusedError(reason, field="node", hint="appliance control node list, node add")
    return nodes[0]


def set_duty(node: Node, duty: Duty) -> None:
    """Say what a node is there for. Doing it twice does no harm.

    Drained, its clients' open sessions go on to their ends and none is opened. In maintenance, besides, no bundle is sent any more once
    the node is drained, and what it looks like is no alarm; revocations are sent all the same.
    """
    with transaction.atomic():
        before = Node.objects.select_for_update().get(pk=node.pk).duty
        Node.objects.filter(pk=node.pk).update(duty=duty)
        hint_on_commit()
        record(Verb.NODE_DUTY, node.name, {"duty": (before, duty)})
    node.refresh_from_db()


def ask_plan(node: Node, asked_by: str) -> NodePlan:
    """Ask what `apply` would do on a node; the reconciler's next pass answers, before it applies anything."""
    with transaction.atomic():
        fresh = {
            "asked_by": asked_by,
            "asked_at": timezone.now(),
            "answered_at": None,
            "error": "",
            "generation": None,
            "actions": [],
            "total": 0,
        }
        plan, _ = NodePlan.objects.update_or_create(node=node, defaults=fresh)
        hint_on_commit()
    return plan


def find_plan(node: Node) -> NodePlan:
    """Return the plan that was asked for last.

    Raises:
        RefusedError: If nobody ever asked.
    """
    plan = NodePlan.objects.filter(node=node).first()
    if plan is None:
        raise RefusedError(
            "nobody asked for a plan yet", field="node", hint="appliance control node plan NAME"
        )
    return plan


def _verify_networks(new: NewNode) -> None:
    network4, network6 = ipaddress.IPv4Network(new.network4), ipaddress.IPv6Network(new.network6)
    address4 = ipaddress.IPv4Address(new.address4)
    if address4 not in network4 or address4 in (network4.network_address, network4.broadcast_address):
        raise RefusedError("not a host address of network4", field="address4")
    if ipaddress.IPv6Address(new.address6) not in network6 or new.address6 == str(network6.network_address):
        raise RefusedError("not a host address of network6", field="address6")
    if network4.prefixlen > 30:
        raise RefusedError("no room for devices", field="network4")
    # As many device addresses in IPv6 as in IPv4: one index names both.
    if 128 - network6.prefixlen < 32 - network4.prefixlen:
        raise RefusedError("smaller than network4", field="network6")


def _verify_apart(new: NewNode, node: Node) -> None:
    if ipaddress.IPv4Network(new.network4).overlaps(ipaddress.IPv4Network(node.network4)):
        raise RefusedError("overlaps the network of another node", field="network4")
    if ipaddress.IPv6Network(new.network6).overlaps(ipaddress.IPv6Network(node.network6)):
        raise RefusedError("overlaps the network of another node", field="network6")

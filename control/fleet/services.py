"""The verbs of the fleet."""

from __future__ import annotations

import ipaddress

from django.db import IntegrityError, transaction

from appliance.core.errors import RefusedError
from control.fleet.models import Node
from control.fleet.requests import NewNode
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

"""Who must be cut off a node now."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q

from control.clients.models import Client, ClientState, Device, DeviceState
from control.fleet.models import Node


@dataclass(frozen=True)
class CutOff:
    """Who may not be served any more, according to the database."""

    public_keys: frozenset[str]
    clients: frozenset[str]


def observe_cut_off(node: Node) -> CutOff:
    """Read who may not be served on this node."""
    outside = ~Q(state=DeviceState.ACTIVE) | ~Q(client__state=ClientState.ACTIVE)
    devices = Device.objects.filter(outside, client__home=node).values_list("public_key", flat=True)
    clients = Client.objects.filter(home=node).exclude(state=ClientState.ACTIVE)
    return CutOff(frozenset(devices), frozenset(clients.values_list("name", flat=True)))

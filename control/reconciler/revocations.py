"""Who must be cut off a node now."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q
from django.utils import timezone

from control.clients.models import CONNECTING, Client, ClientState, Device, Invitation
from control.fleet.models import Node


@dataclass(frozen=True)
class CutOff:
    """Who may not be served any more, according to the database."""

    public_keys: frozenset[str]
    clients: frozenset[str]


def observe_cut_off(node: Node) -> CutOff:
    """Read who may not be served on this node."""
    now = timezone.now()
    outside = ~Q(state__in=CONNECTING) | ~Q(client__state=ClientState.ACTIVE)
    outside |= Q(expires_at__lte=now) | Q(client__expires_at__lte=now)
    devices = Device.objects.filter(outside, client__home=node).values_list("public_key", flat=True)
    clients = Client.objects.filter(~Q(state=ClientState.ACTIVE) | Q(expires_at__lte=now), home=node)
    over = ~Q(ended_at=None) | ~Q(client__state=ClientState.ACTIVE) | Q(expires_at__lte=now)
    guests = Invitation.objects.filter(over, client__home=node).values_list("guest_public_key", flat=True)
    return CutOff(frozenset(devices) | frozenset(guests), frozenset(clients.values_list("name", flat=True)))

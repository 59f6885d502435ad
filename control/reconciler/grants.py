"""Who may connect to a node and is not let in yet."""

from __future__ import annotations

from itertools import groupby

from django.db import transaction
from django.utils import timezone

from appliance.core.bundle import Client as GrantedClient
from control.clients.models import CONNECTING, ClientState, Device
from control.fleet.models import Node
from control.pins.models import ModelPin, PinState
from control.reconciler.render import render_client
from control.reconciler.rows import PresharedKeys, aliases_of, client_row, device_row, lasts

MAX_DEVICES = 50  # of one grant; who adds more at once can wait for the bundle


def observe_missing(
    node: Node, let_in: frozenset[str], preshared_keys: PresharedKeys
) -> tuple[GrantedClient, ...]:
    """Return the devices that may connect to this node and whose keys are not let in, by client; none if there are many."""
    now = timezone.now()
    active = Device.objects.filter(
        lasts(now),
        lasts(now, "client__"),
        client__home=node,
        client__state=ClientState.ACTIVE,
        state__in=CONNECTING,
    )
    with transaction.atomic():
        missing = set(active.values_list("public_key", flat=True)) - let_in
        if not 0 < len(missing) <= MAX_DEVICES:
            return ()
        devices = list(active.filter(public_key__in=missing).select_related("client").order_by("client"))
        pinned = set(ModelPin.objects.filter(state=PinState.ACTIVE).values_list("name", flat=True))
        aliases = aliases_of({device.client for device in devices})
    rows = (
        client_row(client, aliases[client.pk], [device_row(device, preshared_keys) for device in group])
        for client, group in groupby(devices, key=lambda device: device.client)
    )
    rendered = (render_client(row, pinned, node.tunnel) for row in rows)
    return tuple(client for client in rendered if client is not None)

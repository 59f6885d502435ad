"""Reads what a node should be out of the database, as plain values for `render`."""

from __future__ import annotations

from collections import defaultdict

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from django.db import transaction

from appliance.core.sealed import unseal
from control.clients.enrolment import seal_context
from control.clients.models import Client, ClientState, Device, DeviceState
from control.fleet.models import Duty, Node
from control.pins.models import ModelPin, PinState
from control.reconciler.render import ClientRow, DeviceRow, NodeRow, Rows


class PresharedKeys:
    """Opens sealed pre-shared keys, each once: ten thousand of them cost seconds, and passes are frequent."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self._opened: dict[int, str] = {}

    def open(self, device: Device) -> str:
        """Return the device's pre-shared key.

        Raises:
            RefusedError: If its box does not open.
        """
        if device.pk not in self._opened:
            box, context = device.sealed_preshared_key, seal_context(device.public_key)
            self._opened[device.pk] = unseal(self._key, box, context).decode("ascii")
        return self._opened[device.pk]

    def forget_all_but(self, devices: set[int]) -> None:
        """Drop the keys of devices that are gone."""
        self._opened = {pk: text for pk, text in self._opened.items() if pk in devices}


def observe_rows(node: Node, preshared_keys: PresharedKeys) -> Rows:
    """Return everything that this node should be, as of one moment."""
    with transaction.atomic():  # one snapshot: no client without its devices
        pins = list(ModelPin.objects.filter(state=PinState.ACTIVE))
        clients = list(Client.objects.filter(home=node, state=ClientState.ACTIVE))
        wanted = Device.objects.filter(client__in=clients, state=DeviceState.ACTIVE)
        devices = list(wanted)
    preshared_keys.forget_all_but({device.pk for device in devices})
    by_client: defaultdict[int, list[DeviceRow]] = defaultdict(list)
    for device in devices:
        by_client[device.client_id].append(_device_row(device, preshared_keys))
    return Rows(
        node=NodeRow(
            name=node.name,
            seats=node.seats,
            tunnel=node.tunnel,
            certificate=node.certificate,
            drain=node.duty != Duty.SERVING,
        ),
        pins=tuple(pin.parsed_manifest() for pin in pins),
        clients=tuple(_client_row(client, by_client[client.pk]) for client in clients),
    )


def _client_row(client: Client, devices: list[DeviceRow]) -> ClientRow:
    return ClientRow(
        name=client.name,
        pseudonym_key=client.pseudonym_key,
        models=tuple(client.allowed_models),
        limits=client.parsed_limits(),
        devices=tuple(devices),
    )


def _device_row(device: Device, preshared_keys: PresharedKeys) -> DeviceRow:
    return DeviceRow(
        name=device.name,
        public_key=device.public_key,
        preshared_key=preshared_keys.open(device),
        token_sha256=device.token_sha256,
        index=device.index,
    )

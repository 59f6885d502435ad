"""Reads what a node should be out of the database, as plain values for `render`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from appliance.core.names import encode_base64
from appliance.core.sealed import unseal
from control.clients.enrolment import seal_context
from control.clients.models import CONNECTING, Client, ClientState, Device, Invitation
from control.fleet.models import Duty, Node
from control.pins.models import ClientAlias, ModelPin, PinState
from control.reconciler.invitations import live_invitations, open_keys
from control.reconciler.render import ClientRow, DeviceRow, GuestRow, NodeRow, Rows


class PresharedKeys:
    """Opens sealed pre-shared keys, each once: ten thousand of them cost seconds, and passes are frequent."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self.key = key
        self._opened: dict[int, str] = {}

    def open(self, device: Device) -> str:
        """Return the device's pre-shared key.

        Raises:
            RefusedError: If its box does not open.
        """
        if device.pk not in self._opened:
            box, context = device.sealed_preshared_key, seal_context(device.public_key)
            self._opened[device.pk] = unseal(self.key, box, context).decode("ascii")
        return self._opened[device.pk]

    def forget_all_but(self, devices: set[int]) -> None:
        """Drop the keys of devices that are gone."""
        self._opened = {pk: text for pk, text in self._opened.items() if pk in devices}


def observe_rows(node: Node, preshared_keys: PresharedKeys) -> Rows:
    """Return everything that this node should be, as of one moment."""
    now = timezone.now()
    with transaction.atomic():  # one snapshot: no client without its devices
        pins = list(ModelPin.objects.filter(state=PinState.ACTIVE))
        clients = list(Client.objects.filter(lasts(now), home=node, state=ClientState.ACTIVE))
        wanted = Device.objects.filter(lasts(now), client__in=clients, state__in=CONNECTING)
        devices = list(wanted)
        guests = live_invitations(node)
        aliases = aliases_of(clients)
    preshared_keys.forget_all_but({device.pk for device in devices})
    by_client: defaultdict[int, list[DeviceRow]] = defaultdict(list)
    for device in devices:
        by_client[device.client_id].append(device_row(device, preshared_keys))
    return Rows(
        node=NodeRow(
            name=node.name,
            seats=node.seats,
            tunnel=node.tunnel,
            certificate=node.certificate,
            drain=node.duty != Duty.SERVING,
        ),
        pins=tuple(pin.parsed_manifest() for pin in pins),
        clients=tuple(client_row(client, aliases[client.pk], by_client[client.pk]) for client in clients),
        guests=tuple(_guest_row(guest, preshared_keys.key) for guest in guests if _is_let_in(guest, now)),
    )


def aliases_of(clients: Iterable[Client]) -> defaultdict[int, dict[str, str]]:
    """Return each client's aliases and the models they name, by the client's key."""
    aliases: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for alias in ClientAlias.objects.filter(client__in=clients):
        aliases[alias.client_id][alias.alias] = alias.model
    return aliases


def _is_let_in(invitation: Invitation, now: datetime) -> bool:
    client, ends = invitation.client, (invitation.expires_at, invitation.client.expires_at)
    return client.state == ClientState.ACTIVE and all(end is None or now < end for end in ends)


def _guest_row(invitation: Invitation, seal_key: X25519PrivateKey) -> GuestRow:
    preshared_key, _ = open_keys(invitation, seal_key)
    return GuestRow(
        public_key=invitation.guest_public_key,
        preshared_key=encode_base64(preshared_key),
        secret_sha256=invitation.secret_sha256,
        index=invitation.index,
        expires_at=int(invitation.expires_at.timestamp()),
        answer=invitation.answer or None,
    )


def lasts(now: datetime, prefix: str = "") -> Q:
    """Return the condition that a row's end has not come; `prefix` leads to the row, as in `client__`."""
    return Q(**{f"{prefix}expires_at": None}) | Q(**{f"{prefix}expires_at__gt": now})


def client_row(client: Client, aliases: dict[str, str], devices: list[DeviceRow]) -> ClientRow:
    """Return a client with these of its devices."""
    return ClientRow(
        name=client.name,
        pseudonym_key=client.pseudonym_key,
        models=tuple(client.allowed_models),
        limits=client.parsed_limits(),
        devices=tuple(devices),
        expires_at=_unix(client.expires_at),
        aliases=aliases,
    )


def device_row(device: Device, preshared_keys: PresharedKeys) -> DeviceRow:
    """Return a device.

    Raises:
        RefusedError: If its sealed pre-shared key does not open.
    """
    return DeviceRow(
        name=device.name,
        public_key=device.public_key,
        preshared_key=preshared_keys.open(device),
        token_sha256=device.token_sha256,
        index=device.index,
        expires_at=_unix(device.expires_at),
    )


def _unix(end: datetime | None) -> int | None:
    return None if end is None else int(end.timestamp())

"""Adds a device: stores what control needs of its secrets, returns what the client takes home once.

Its secrets are made here when an operator adds it (`add_device`), and on the client when it redeems an invitation (`admit_device`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from appliance.core.client_configuration import TOKEN_PREFIX, ClientConfiguration, DeviceConfiguration
from appliance.core.errors import HostError, RefusedError, UnavailableError
from appliance.core.names import encode_base64
from appliance.core.receipt import Keyring
from appliance.core.sealed import seal
from control.clients.addresses import device_addresses, next_index
from control.clients.configuration import NodeEnd, PublicMaterial, render_configuration
from control.clients.expiry import parse_end
from control.clients.models import (
    CONNECTING,
    AddressCounter,
    Client,
    ClientState,
    Device,
    DeviceState,
    Invitation,
)
from control.clients.requests import NewDevice
from control.clients.services import find_client
from control.config import ControlPaths, WitnessConfig
from control.fleet.models import Node
from control.hints import hint_on_commit
from control.journal.services import created, record
from control.journal.vocabulary import Verb
from control.operators.services import token_digest
from control.pins.models import ModelPin, PinState

MAX_DEVICES = 10_000  # per client; the bundle's schema says so


@dataclass(frozen=True)
class KnownSecrets:
    """What control learns of a device's secrets: of the token only its digest."""

    token_sha256: str
    preshared_key: str = field(repr=False)


def add_device(new: NewDevice, replaced: Device | None = None) -> ClientConfiguration:
    """Make a device's secrets, add it and return its configuration, which cannot be had a second time. As `admit_device`."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    preshared_key = encode_base64(secrets.token_bytes(32))
    rest = admit_device(new, KnownSecrets(token_digest(token), preshared_key), replaced)
    return ClientConfiguration(**dict(rest), token=token)


def admit_device(new: NewDevice, known: KnownSecrets, replaced: Device | None = None) -> DeviceConfiguration:
    """Add a device whose secrets were made already; return what else it needs.

    Args:
        new: What was asked for.
        known: What control learns of the secrets.
        replaced: The key whose place this one takes, as it was.

    Raises:
        RefusedError: Naming the field: a key that was used before, a name that is taken, a client that is revoked, an
            end that has passed, a tunnel network that is full.
        UnavailableError: If the reconciler has not reached the client's node yet, so its key is not known.
    """
    expires_at = parse_end(new.expires_at, timezone.now())
    material = read_public_material(settings.PATHS, settings.CONFIG.witnesses)
    seal_key = read_seal_key(settings.PATHS)
    with transaction.atomic():
        client = find_client(new.client)
        node = node_end(client.home)
        _verify_new(client, new, known.token_sha256)
        index = take_index(node)
        try:
            Device.objects.create(
                client=client,
                name=new.name,
                public_key=new.public_key,
                sealed_preshared_key=seal(
                    seal_key, known.preshared_key.encode("ascii"), seal_context(new.public_key)
                ),
                token_sha256=known.token_sha256,
                index=index,
                expires_at=expires_at,
            )
        except IntegrityError as error:
            raise RefusedError("the name or key was taken a moment ago", field="public_key") from error
        hint_on_commit()
        name = f"{client.name}/{new.name}"
        facts = {"expires_at": expires_at, "index": index, "public_key": new.public_key}
        if replaced is None:
            record(Verb.DEVICE_ADD, name, created(**facts, state=DeviceState.ACTIVE))
        else:
            record(
                Verb.DEVICE_ROTATE,
                name,
                {fact: (getattr(replaced, fact), value) for fact, value in facts.items()},
            )
    return render_configuration(
        client=client.name,
        device=new.name,
        public_key=new.public_key,
        addresses=device_addresses(node.tunnel, index),
        node=node,
        preshared_key=known.preshared_key,
        material=material,
        pseudonym_key=client.pseudonym_key,
        pin_ids=_pin_ids(client),
    )


def seal_context(public_key: str) -> bytes:
    """Return what a sealed pre-shared key is bound to: it opens for this device's row and no other."""
    return b"preshared-key\n" + public_key.encode("ascii")


def read_public_material(paths: ControlPaths, witnesses: Iterable[WitnessConfig]) -> PublicMaterial:
    """Read the CA, the keyring and the log's keys; name the witnesses.

    Raises:
        HostError: If they are missing or damaged.
    """
    try:
        keyring = Keyring.parse(json.loads(_read(paths.keyring)))
    except (ValueError, RefusedError) as error:
        raise HostError(
            f"{paths.keyring} is damaged", hint="restart the reconciler; it writes it anew"
        ) from error
    log_keys = tuple(_read(paths.log_keys).splitlines())
    return PublicMaterial(
        ca_pem=_read(paths.ca_certificate),
        keyring=keyring,
        log_keys=log_keys,
        witness_keys=tuple(witness.key for witness in witnesses),
    )


def read_seal_key(paths: ControlPaths) -> str:
    """Return the public key that boxes for the reconciler are closed with. Raises HostError if it is missing."""
    return _read(paths.seal_public).strip()


def node_end(node: Node) -> NodeEnd:
    """Return the node as a client's WireGuard sees it.

    Raises:
        UnavailableError: If the reconciler has not met it yet.
    """
    # Without the certified receipt key the client could not verify what it takes home.
    if not node.wireguard_public_key or not node.receipt_public_key:
        raise UnavailableError(
            "the node's keys are not known yet",
            hint="is `appliance control reconcile` running and reaching it?",
        )
    return NodeEnd(endpoint=node.endpoint, public_key=node.wireguard_public_key, tunnel=node.tunnel)


def _verify_new(client: Client, new: NewDevice, token_sha256: str) -> None:
    if client.state == ClientState.REVOKED:
        raise RefusedError("the client was revoked", field="client")
    # Revoked devices count too: a key that was cut off once may be in the wrong hands, and keys cost nothing.
    if Device.objects.filter(public_key=new.public_key).exists():
        raise RefusedError("the key was used before", field="public_key", hint="make a new key on the client")
    if Node.objects.filter(wireguard_public_key=new.public_key).exists():
        raise RefusedError("the key of a node", field="public_key")
    if Invitation.objects.filter(guest_public_key=new.public_key).exists():
        raise RefusedError("the key of an invitation", field="public_key")
    # Only a redemption can bring a digest that is there, and whoever knows one needs no second device of the same token.
    if Device.objects.filter(token_sha256=token_sha256).exists():
        raise RefusedError("the token was used before", field="token_sha256")
    connecting = Device.objects.filter(client=client, state__in=CONNECTING)
    if connecting.filter(name=new.name, state=DeviceState.ACTIVE).exists():
        raise RefusedError(
            "the client has a device of this name",
            field="name",
            hint="another key for it: appliance control device rotate",
        )
    if connecting.count() >= MAX_DEVICES:
        raise RefusedError("the client has as many devices as there can be", field="client")


def take_index(node: NodeEnd) -> int:
    """Take the next index of a tunnel address, in the caller's transaction; none is given out twice.

    Raises:
        RefusedError: If the node's tunnel network is full.
    """
    # The row lock (SQLite: the transaction's own write lock) lets one device at a time take an index.
    AddressCounter.objects.get_or_create(pk=1)
    counter = AddressCounter.objects.select_for_update().get(pk=1)
    counter.last = next_index(counter.last, node.tunnel)
    counter.save(update_fields=["last"])
    return counter.last


def _pin_ids(client: Client) -> tuple[str, ...]:
    active = ModelPin.objects.filter(state=PinState.ACTIVE, name__in=client.allowed_models)
    pins = dict(active.values_list("name", "pin_id"))
    return tuple(pins[name] for name in client.allowed_models if name in pins)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise HostError(f"cannot read {path}", hint="appliance control init --state DIR") from error

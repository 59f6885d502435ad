"""Adds a device: makes its secrets, stores what control needs of them, returns what the client takes home once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction

from appliance.core.client_configuration import TOKEN_PREFIX, ClientConfiguration
from appliance.core.errors import HostError, RefusedError, UnavailableError
from appliance.core.names import encode_base64
from appliance.core.receipt import Keyring
from appliance.core.sealed import seal
from control.clients.addresses import device_addresses, next_index
from control.clients.configuration import DeviceSecrets, NodeEnd, PublicMaterial, render_configuration
from control.clients.models import AddressCounter, Client, ClientState, Device, DeviceState
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


def add_device(new: NewDevice) -> ClientConfiguration:
    """Add a device and return its configuration, which cannot be had a second time.

    Raises:
        RefusedError: Naming the field: a key that was used before, a name that is taken, a client that is revoked, a
            tunnel network that is full.
        UnavailableError: If the reconciler has not reached the client's node yet, so its key is not known.
    """
    material = read_public_material(settings.PATHS, settings.CONFIG.witnesses)
    seal_key = _read(settings.PATHS.seal_public).strip()
    made = DeviceSecrets(
        token=TOKEN_PREFIX + secrets.token_urlsafe(32),
        preshared_key=encode_base64(secrets.token_bytes(32)),
    )
    with transaction.atomic():
        client = find_client(new.client)
        node = _node_end(client.home)
        _verify_new(client, new)
        index = _take_index(node)
        try:
            Device.objects.create(
                client=client,
                name=new.name,
                public_key=new.public_key,
                sealed_preshared_key=seal(
                    seal_key, made.preshared_key.encode("ascii"), seal_context(new.public_key)
                ),
                token_sha256=token_digest(made.token),
                index=index,
            )
        except IntegrityError as error:
            raise RefusedError("the name or key was taken a moment ago", field="public_key") from error
        hint_on_commit()
        facts = created(index=index, public_key=new.public_key, state=DeviceState.ACTIVE)
        record(Verb.DEVICE_ADD, f"{client.name}/{new.name}", facts)
    return render_configuration(
        client=client.name,
        device=new.name,
        public_key=new.public_key,
        addresses=device_addresses(node.tunnel, index),
        node=node,
        secrets=made,
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


def _node_end(node: Node) -> NodeEnd:
    # Without the certified receipt key the client could not verify what it takes home.
    if not node.wireguard_public_key or not node.receipt_public_key:
        raise UnavailableError(
            "the node's keys are not known yet",
            hint="is `appliance control reconcile` running and reaching it?",
        )
    return NodeEnd(endpoint=node.endpoint, public_key=node.wireguard_public_key, tunnel=node.tunnel)


def _verify_new(client: Client, new: NewDevice) -> None:
    if client.state == ClientState.REVOKED:
        raise RefusedError("the client was revoked", field="client")
    # Revoked devices count too: a key that was cut off once may be in the wrong hands, and keys cost nothing.
    if Device.objects.filter(public_key=new.public_key).exists():
        raise RefusedError("the key was used before", field="public_key", hint="make a new key on the client")
    if Node.objects.filter(wireguard_public_key=new.public_key).exists():
        raise RefusedError("the key of a node", field="public_key")
    active = Device.objects.filter(client=client, state=DeviceState.ACTIVE)
    if active.filter(name=new.name).exists():
        raise RefusedError("the client has a device of this name", field="name")
    if active.count() >= MAX_DEVICES:
        raise RefusedError("the client has as many devices as there can be", field="client")


def _take_index(node: NodeEnd) -> int:
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

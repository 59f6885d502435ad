"""Desired state in, bundle out. Pure: the same rows give the same bytes, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.core.bundle import Alias, Bundle, Client, Device, Guest, Limits, Tls, Tunnel
from appliance.core.names import decode_base64
from appliance.core.pin import Manifest
from appliance.core.receipt import pseudonym
from control.clients.addresses import device_addresses

DEFAULT: Final = "default"
"""The alias that every client has: the model its cell loads."""


@dataclass(frozen=True)
class DeviceRow:
    """A key that works; `expires_at` in seconds since 1970."""

    name: str
    public_key: str
    preshared_key: str = field(repr=False)
    token_sha256: str
    index: int
    expires_at: int | None = None


@dataclass(frozen=True)
class ClientRow:
    """An active client; `expires_at` in seconds since 1970."""

    name: str
    pseudonym_key: str = field(repr=False)
    models: tuple[str, ...]
    limits: Limits
    devices: tuple[DeviceRow, ...]
    expires_at: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestRow:
    """The throw-away peer of an invitation that is not over."""

    public_key: str
    preshared_key: str = field(repr=False)
    secret_sha256: str
    index: int
    expires_at: int
    answer: str | None


@dataclass(frozen=True)
class NodeRow:
    """The node itself."""

    name: str
    seats: int
    tunnel: Tunnel
    certificate: str
    drain: bool = False


@dataclass(frozen=True)
class Rows:
    """Everything that one node should be."""

    node: NodeRow
    pins: tuple[Manifest, ...]
    clients: tuple[ClientRow, ...]
    guests: tuple[GuestRow, ...] = ()


def render_bundle(rows: Rows, *, epoch: int, generation: int, previous: str | None) -> Bundle:
    """Return the node's bundle under these numbers."""
    return number_content(render_content(rows), epoch=epoch, generation=generation, previous=previous)


def render_content(rows: Rows) -> Bundle:
    """Return the node's bundle with the numbers of a first one, everything sorted by name.

    Two of these have the same digest exactly if what they say is the same.
    """
    pins = tuple(sorted(rows.pins, key=lambda pin: pin.name))
    names = {pin.name for pin in pins}
    rendered = (render_client(row, names, rows.node.tunnel) for row in rows.clients)
    clients = sorted((client for client in rendered if client is not None), key=lambda client: client.name)
    return Bundle(
        node=rows.node.name,
        epoch=1,
        generation=1,
        previous=None,
        seats=rows.node.seats,
        drain=rows.node.drain,
        tunnel=rows.node.tunnel,
        tls=Tls(certificate=rows.node.certificate) if rows.node.certificate else None,
        pins=pins,
        clients=tuple(clients),
        guests=tuple(_guests(rows.guests, rows.node.tunnel)),
    )


def number_content(content: Bundle, *, epoch: int, generation: int, previous: str | None) -> Bundle:
    """Return the same bundle under other numbers; its devices are not validated a second time."""
    return content.model_copy(update={"epoch": epoch, "generation": generation, "previous": previous})


def render_client(row: ClientRow, pinned: set[str], tunnel: Tunnel) -> Client | None:
    """Return the client, or None if every model it may use was retired: there is nothing to serve it with."""
    # Stable: the model that `default` names comes first, the others stay in their order.
    ordered = sorted(row.models, key=lambda name: name != row.aliases.get(DEFAULT))
    models = tuple(name for name in ordered if name in pinned)
    if not models:
        return None
    aliases = {**row.aliases, DEFAULT: models[0]}
    return Client(
        name=row.name,
        pseudonym=pseudonym(decode_base64(row.pseudonym_key), row.name),
        models=models,
        aliases=tuple(
            Alias(alias=alias, model=model) for alias, model in sorted(aliases.items()) if model in models
        ),
        limits=row.limits,
        devices=tuple(_devices(row.devices, tunnel)),
        expires_at=row.expires_at,
    )


def _devices(rows: Iterable[DeviceRow], tunnel: Tunnel) -> Iterable[Device]:
    for row in sorted(rows, key=lambda row: (row.name, row.index)):
        address4, address6 = device_addresses(tunnel, row.index)
        yield Device(
            name=row.name,
            public_key=row.public_key,
            preshared_key=row.preshared_key,
            address4=address4,
            address6=address6,
            token_sha256=row.token_sha256,
            expires_at=row.expires_at,
        )


def _guests(rows: Iterable[GuestRow], tunnel: Tunnel) -> Iterable[Guest]:
    for row in sorted(rows, key=lambda row: row.index):
        address4, address6 = device_addresses(tunnel, row.index)
        yield Guest(
            public_key=row.public_key,
            preshared_key=row.preshared_key,
            address4=address4,
            address6=address6,
            secret_sha256=row.secret_sha256,
            expires_at=row.expires_at,
            answer=row.answer,
        )

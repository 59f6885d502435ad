"""The policy of one client as its cell reads it: `/run/appliance/clients/<client>/policy.json`.

The agent renders it from the bundle and replaces it atomically; the cell reads it anew when it changes. It holds no
key: only digests of tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from appliance.core.bundle import Bundle, Client, Generation, Limits
from appliance.core.errors import PinError
from appliance.core.names import Address4, Address6, Digest, Name
from appliance.core.pin import Manifest
from appliance.core.schema import Closed


class DeviceAccess(Closed):
    """A device that may speak to the cell: its tunnel addresses and the digest of its bearer token."""

    address4: Address4
    address6: Address6
    name: Name
    token_sha256: Digest


class Policy(Closed):
    """What one cell needs to know, and nothing of any other client.

    Attributes:
        v: Schema version.
        client: The client's name.
        generation: Of the bundle this was rendered from; goes into receipts.
        draining: True while the node is taken out of service: sessions go on, none is opened.
        revoked: True when the client was cut off: the cell ends its sessions and exits.
        seats: Cells that may run at once on this node; divides the cores.
        limits: What the client may use.
        models: The pins it may use, the default first.
        devices: Who may speak.
    """

    client: Name
    devices: tuple[DeviceAccess, ...]
    draining: bool = False
    generation: Generation
    limits: Limits
    models: tuple[Manifest, ...]
    revoked: bool
    seats: Annotated[int, Field(ge=1, le=1024)]
    v: Literal[1] = 1


def render_policy(bundle: Bundle, client: Client) -> Policy:
    """Return the policy of one client of a bundle. Pure.

    Raises:
        PinError: If the client names a model that the bundle does not pin (`verify_bundle` has refused that before).
    """
    pins = {pin.name: pin for pin in bundle.pins}
    try:
        models = tuple(pins[name] for name in client.models)
    except KeyError as error:
        raise PinError("the client names a model that is not pinned", field="models") from error
    devices = tuple(
        DeviceAccess(name=d.name, address4=d.address4, address6=d.address6, token_sha256=d.token_sha256)
        for d in client.devices
    )
    return Policy(
        client=client.name,
        generation=bundle.generation,
        draining=bundle.drain,
        revoked=False,
        seats=bundle.seats,
        limits=client.limits,
        models=models,
        devices=devices,
    )

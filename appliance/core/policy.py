"""The policy of one client as its cell reads it: `/run/appliance/clients/<client>/policy.json`.

The agent renders it from the bundle and replaces it atomically; the cell reads it anew when it changes. It holds no
key: only digests of tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from appliance.core.bundle import Alias, Bundle, Client, ExpiresAt, Generation, Limits
from appliance.core.errors import PinError
from appliance.core.names import Address4, Address6, Digest, Name
from appliance.core.pin import Manifest
from appliance.core.schema import Closed, is_absent


class DeviceAccess(Closed):
    """A device that may speak to the cell: its tunnel addresses, the digest of its bearer token, and until when."""

    address4: Address4
    address6: Address6
    expires_at: ExpiresAt = None
    name: Name
    token_sha256: Digest

    @property
    def credential(self) -> tuple[str, str, str]:
        """What admits it: its addresses and the digest of its token. Another end is still the same device."""
        return self.address4, self.address6, self.token_sha256


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
        aliases: Other names by which it may ask for them.
        devices: Who may speak.
        expires_at: When the client ends with all its devices.
    """

    aliases: tuple[Alias, ...] = ()
    client: Name
    devices: tuple[DeviceAccess, ...]
    draining: Annotated[bool, Field(exclude_if=is_absent)] = False
    expires_at: ExpiresAt = None
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
        DeviceAccess(
            name=d.name,
            address4=d.address4,
            address6=d.address6,
            token_sha256=d.token_sha256,
            expires_at=d.expires_at,
        )
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
        aliases=client.aliases,
        devices=devices,
        expires_at=client.expires_at,
    )

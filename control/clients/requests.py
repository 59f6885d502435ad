"""What an operator says to add a client or a device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from appliance.core.bundle import Limits
from appliance.core.names import Key32, Name
from appliance.core.schema import Closed
from control.query import QueryFilter


class NewClient(Closed):
    """A client to create.

    Attributes:
        name: Unique for ever.
        models: Names of pins it may use, the default first; null for all that are pinned now.
        limits: What it may use.
        node: Its home; null where there is only one node.
        expires_at: When it ends with all its devices (RFC 3339), at most ten years ahead; null: never.
    """

    name: Name
    models: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] | None = None
    limits: Limits = Limits()
    node: Name | None = None
    expires_at: AwareDatetime | None = None


class NewDevice(Closed):
    """A device to add.

    Attributes:
        client: Whose.
        name: Unique among the client's active devices.
        public_key: Its WireGuard public key, made on the client; used once and never again.
        expires_at: When this key ends (RFC 3339), at most ten years ahead; null: never.
    """

    client: Name
    name: Name
    public_key: Key32
    expires_at: AwareDatetime | None = None


class Expiry(Closed):
    """When a client or a device's key ends.

    Attributes:
        expires_at: RFC 3339, at most ten years ahead; null: never.
    """

    expires_at: AwareDatetime | None


class Rotation(Closed):
    """Another key for a device.

    Attributes:
        public_key: As in `NewDevice`.
        overlap_h: For how many hours the key that the device has goes on working; 0 ends it at once.
        expires_at: When the new key ends; null: never.
    """

    public_key: Key32
    overlap_h: Annotated[int, Field(ge=0, le=720)] = 168
    expires_at: AwareDatetime | None = None


class NewInvitation(Closed):
    """An invitation to make.

    Attributes:
        client: Who is invited.
        device: Name of the device that it will make, unique among the client's active devices.
        hours: How long it can be redeemed.
        approval: An operator must compare the fingerprint of the device's key before it is let in.
    """

    client: Name
    device: Name
    hours: Annotated[int, Field(ge=1, le=168)] = 24
    approval: bool = False


class ShownInvitation(Closed):
    """An invitation as it is shown, once.

    Attributes:
        id: Its number.
        client, device: Who is invited, and the name of the device to be.
        expires_at: RFC 3339.
        invitation: The ticket, one line; whoever has it can redeem it.
        qr_svg: The same as a QR code.
    """

    id: Annotated[int, Field(ge=1, le=2**53 - 1)]
    client: Name
    device: Name
    expires_at: str
    invitation: str
    qr_svg: str


class InvitationFilter(QueryFilter):
    """`?client=NAME` and `?open=true` on the list of invitations."""

    client: Name | None = None
    open: Literal["true", "false"] | None = None


class DeviceFilter(QueryFilter):
    """`?client=NAME` on the list of devices."""

    client: Name | None = None

"""What an operator says to add a client or a device."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

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
    """

    name: Name
    models: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)] | None = None
    limits: Limits = Limits()
    node: Name | None = None


class NewDevice(Closed):
    """A device to add.

    Attributes:
        client: Whose.
        name: Unique among the client's active devices.
        public_key: Its WireGuard public key, made on the client; used once and never again.
    """

    client: Name
    name: Name
    public_key: Key32


class DeviceFilter(QueryFilter):
    """`?client=NAME` on the list of devices."""

    client: Name | None = None

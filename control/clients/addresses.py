"""Tunnel addresses of devices: the networks' bases plus the device's index. Pure."""

from __future__ import annotations

import ipaddress

from appliance.core.bundle import Tunnel
from appliance.core.errors import RefusedError


def device_addresses(tunnel: Tunnel, index: int) -> tuple[str, str]:
    """Return the IPv4 and IPv6 tunnel address of the device with this index.

    Args:
        tunnel: The home node's end of the tunnel.
        index: At least 1.

    Raises:
        RefusedError: If the network has no such host.
    """
    network4, network6 = ipaddress.IPv4Network(tunnel.network4), ipaddress.IPv6Network(tunnel.network6)
    # The first address is the network's and the last the broadcast's.
    if not 1 <= index < network4.num_addresses - 1:
        raise RefusedError(
            "the tunnel network has no address left", field="node", hint="add a node with a larger network4"
        )
    return str(network4.network_address + index), str(network6.network_address + index)


def next_index(last: int, tunnel: Tunnel) -> int:
    """Return the next index whose addresses are not the node's own."""
    index = last + 1
    while tunnel.address4 in (pair := device_addresses(tunnel, index)) or tunnel.address6 in pair:
        index += 1
    return index

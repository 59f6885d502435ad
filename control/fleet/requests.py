"""What an operator says to add a node."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from appliance.core.bundle import Port
from appliance.core.names import Address4, Address6, Name, Network4, Network6, decode_base64
from appliance.core.schema import Closed

HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256")


def _host_key(value: str) -> str:
    kind, _, rest = value.partition(" ")
    if kind not in HOST_KEY_TYPES:
        raise ValueError(f"not a host key of type {' or '.join(HOST_KEY_TYPES)}")
    body = rest.partition(" ")[0]
    # RFC 4253 section 6.6: the blob begins with its own type, so a line cannot claim another.
    if not decode_base64(body).startswith(len(kind).to_bytes(4, "big") + kind.encode("ascii")):
        raise ValueError("the key's bytes are of another type than its line says")
    return f"{kind} {body}"


def _endpoint(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535 or str(int(port)) != port:
        raise ValueError("not an address with a port, for example 192.0.2.1:51820 or [2001:db8::1]:51820")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = ipaddress.ip_address(bare)
    if (address.version == 6) != (bare != host) or str(address) != bare:
        raise ValueError("not the canonical text of an address; IPv6 stands in brackets")
    return value


HostKey = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^[a-z0-9-]+ [A-Za-z0-9+/=]+( [!-~]*)?$"),
    AfterValidator(_host_key),
]
Endpoint = Annotated[str, StringConstraints(max_length=64), AfterValidator(_endpoint)]


class NodeSettings(Closed):
    """What an operator may change of a node. Everything else belongs to its keys or to addresses that devices have.

    Attributes:
        endpoint: WireGuard's public address and port. Devices that have a configuration keep the old one.
        seats: How many cells may run at once.
    """

    endpoint: Endpoint
    seats: Annotated[int, Field(ge=1, le=1024)]


class NodeChange(Closed):
    """Settings of a node that change; the others stay."""

    endpoint: Endpoint | None = None
    seats: Annotated[int, Field(ge=1, le=1024)] | None = None


class NewNode(Closed):
    """A node to add.

    Attributes:
        name: As in the node's own settings.
        address, port, user: Where sshd listens on the management network, and the user of the forced command.
        host_key: One line of known_hosts without its first field: type and key. There is no trust on first use.
        endpoint: WireGuard's public address and port, as clients reach it.
        listen_port: WireGuard's port on the node where it differs from the endpoint's (a port forward).
        address4, address6, network4, network6: The node's tunnel addresses and where device addresses come from.
        seats: How many cells may run at once.
        mtu: Of the tunnel interface, in bytes.
    """

    name: Name
    address: Address4 | Address6
    port: Port = 22
    user: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
    host_key: HostKey
    endpoint: Endpoint
    listen_port: Port | None = None
    address4: Address4
    address6: Address6
    network4: Network4
    network6: Network6
    seats: Annotated[int, Field(ge=1, le=1024)] = 1
    mtu: Annotated[int, Field(ge=1280, le=9000)] = 1420

"""What a node holds, as one value: read from the world (have) or rendered from a bundle (want). Pure.

Also here: the naming rule of `peers/*.sock`, which the NGINX template and the symlinks must share.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from appliance.core.errors import BundleError

EMPTY: Mapping[str, Any] = MappingProxyType({})

# What follows the network's `::` in a device's IPv6 address: the one group that differs between devices.
_HOST_GROUP = re.compile(r"[0-9a-f]{1,4}")


@dataclass(frozen=True)
class Peer:
    """A WireGuard peer as the node's end configures it.

    Attributes:
        public_key: Canonical base64.
        preshared_key: Canonical base64; None only in what was observed.
        allowed_ips: Networks as text; cryptokey routing gives each to one peer at most.
        keepalive_s: Interval in seconds, 0 for off. A node never wants one: it would give away that the node is there.

    The endpoint is left out on purpose: peers roam, and WireGuard learns it from authenticated packets.
    """

    public_key: str
    preshared_key: str | None
    allowed_ips: frozenset[str]
    keepalive_s: int = 0


@dataclass(frozen=True)
class Interface:
    """The tunnel interface.

    Attributes:
        public_key: Of its private key, None while it has none.
        listen_port: UDP port.
        addresses: With prefix length, link-local ones left out.
        mtu: In bytes.
        up: Whether it carries packets.
    """

    public_key: str | None
    listen_port: int
    addresses: frozenset[str]
    mtu: int
    up: bool = True


@dataclass(frozen=True)
class Firewall:
    """The table `inet appliance`.

    Attributes:
        rules: Text of the table without the elements of its peer sets. None if it is not loaded or somebody changed
            it; both are mended by loading it again.
        peers4, peers6: Elements of the peer sets.
        guests4, guests6: Elements of the sets of throw-away peers, which reach the mailbox alone.
    """

    rules: str | None
    peers4: frozenset[str] = frozenset()
    peers6: frozenset[str] = frozenset()
    guests4: frozenset[str] = frozenset()
    guests6: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Files:
    """What the agent writes under /run/appliance.

    Attributes:
        policies: Client to canonical bytes of its policy.json; empty bytes where the folder holds none.
        routes: Name in `peers/` to client.
        seats: Names in `seats/`.
        roster: Whom the mailbox knows; None where there is no file.
    """

    policies: Mapping[str, bytes] = field(default_factory=lambda: EMPTY)
    routes: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    seats: frozenset[str] = frozenset()
    roster: bytes | None = None


@dataclass(frozen=True)
class Web:
    """NGINX.

    Attributes:
        running: A master process of ours is alive.
        config: The configuration that it runs with, None if that is not known.
        certificate: PEM that it serves, None if it is not known.
    """

    running: bool = False
    config: str | None = None
    certificate: str | None = None


@dataclass(frozen=True)
class Account:
    """A client as the notary knows it.

    Attributes:
        pseudonym: What its receipts call it.
        requests_per_day, tokens_per_day: Its budgets of a day in UTC; None: none.
    """

    pseudonym: str
    requests_per_day: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True)
class Served:
    """Who the other services of the node serve.

    Attributes:
        notary: Clients that have a notary.sock.
        cells: Clients that have an http.sock.
        accounts: What the notary is told of each; known only of what is wanted, so it is not compared.
    """

    notary: frozenset[str] = frozenset()
    cells: frozenset[str] = frozenset()
    accounts: Mapping[str, Account] = field(default_factory=lambda: EMPTY, compare=False)


@dataclass(frozen=True)
class State:
    """All of it."""

    firewall: Firewall
    interface: Interface | None = None
    peers: Mapping[str, Peer] = field(default_factory=lambda: EMPTY)
    files: Files = field(default_factory=Files)
    served: Served = field(default_factory=Served)
    web: Web = field(default_factory=Web)


def route4(address4: str) -> str:
    """Return the name in `peers/` of a device's IPv4 address."""
    return f"{address4}.sock"


def route6(address6: str, prefix: str, path: str) -> str:
    """Return the name in `peers/` of a device's IPv6 address: `v6-<hex>.sock`, the last group of the address.

    A `:` would end the path of `proxy_pass http://unix:`, so the address itself cannot be the name. The NGINX map
    takes the same last group with a regular expression, which is why other forms of address are refused.

    Args:
        address6: Canonical text.
        prefix: From `route6_prefix`.
        path: Field of the address, for the error.

    Raises:
        BundleError: If the address is not the network's prefix, `::` and one group.
    """
    host = address6.removeprefix(prefix)
    if host == address6 or not _HOST_GROUP.fullmatch(host):
        raise BundleError("not the tunnel network's prefix and one group (<prefix>::<hex>)", field=path)
    return f"v6-{host}.sock"


def route6_prefix(network6: str) -> str:
    """Return what all device addresses of the network begin with, `::` included.

    Raises:
        BundleError: If the network's text does not end in `::`.
    """
    prefix = str(ipaddress.IPv6Network(network6).network_address)
    if not prefix.endswith("::"):
        raise BundleError("must end in `::` (a prefix of /112 or shorter)", field="tunnel.network6")
    return prefix

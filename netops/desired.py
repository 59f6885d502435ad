"""What a bundle makes of a node, as a State. Pure.

`extend` and `prune` put granted devices into a bundle and take revoked ones out of it first, so that everything after them
needs no notion of either.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from appliance.core.bundle import Bundle, Client, Device, Guest
from appliance.core.errors import BundleError
from appliance.core.node import NodePaths, NodeSettings
from appliance.core.policy import render_policy
from netops import nftables, nginx
from netops.mailbox.roster import render_roster
from netops.model import (
    Account,
    Files,
    Firewall,
    Interface,
    Peer,
    Served,
    State,
    Web,
    route4,
    route6,
    route6_prefix,
)


def render_closed(settings: NodeSettings) -> State:
    """Return what a node without a bundle should be: closed but for management."""
    return State(firewall=Firewall(nftables.render_rules(settings, None)))


def render_state(bundle: Bundle, settings: NodeSettings, paths: NodePaths, public_key: str) -> State:
    """Return what the node should be.

    Args:
        bundle: Verified, and pruned of what was revoked.
        settings: The node's settings.
        paths: The node's paths.
        public_key: Of the node's WireGuard key.

    Raises:
        BundleError: If an address has a form that routing by socket name cannot express; names the field.
    """
    devices = [device for client in bundle.clients for device in client.devices]
    peers: tuple[Device | Guest, ...] = (*devices, *bundle.guests)
    return State(
        firewall=Firewall(
            nftables.render_rules(settings, bundle.tunnel),
            frozenset(device.address4 for device in devices),
            frozenset(device.address6 for device in devices),
            frozenset(guest.address4 for guest in bundle.guests),
            frozenset(guest.address6 for guest in bundle.guests),
        ),
        interface=_interface(bundle, public_key),
        peers={peer.public_key: render_peer(peer) for peer in peers},
        files=Files(
            policies={
                client.name: render_policy(bundle, client).canonical_bytes() for client in bundle.clients
            },
            routes=render_routes(bundle),
            seats=frozenset(str(number) for number in range(bundle.seats)),
            roster=render_roster(bundle.guests),
        ),
        served=Served(
            notary=frozenset(client.name for client in bundle.clients),
            cells=frozenset(client.name for client in bundle.clients),
            accounts={client.name: render_account(client) for client in bundle.clients},
        ),
        web=_web(bundle, settings, paths),
    )


def render_account(client: Client) -> Account:
    """Return what the notary is told of a client."""
    return Account(client.pseudonym, client.limits.requests_per_day, client.limits.tokens_per_day)


def prune(bundle: Bundle, public_keys: AbstractSet[str], clients: AbstractSet[str]) -> Bundle:
    """Return the bundle without these peers and clients. Its digest is another then: never store it."""
    if not public_keys and not clients:
        return bundle
    kept = tuple(
        client.model_copy(
            update={"devices": tuple(d for d in client.devices if d.public_key not in public_keys)}
        )
        for client in bundle.clients
        if client.name not in clients
    )
    guests = tuple(guest for guest in bundle.guests if guest.public_key not in public_keys)
    return bundle.model_copy(update={"clients": kept, "guests": guests})


def extend(bundle: Bundle, granted: Sequence[Client]) -> Bundle:
    """Return the bundle with these devices too, in the order of a bundle. Its digest is another then: never store it.

    What it holds already, by public key or for a client by name, stays as it is.
    """
    if not granted:
        return bundle
    clients = {client.name: client for client in bundle.clients}
    known = {device.public_key for client in bundle.clients for device in client.devices}
    for client in granted:
        new = tuple(device for device in client.devices if device.public_key not in known)
        known.update(device.public_key for device in new)
        kept = clients[client.name].devices if client.name in clients else ()
        devices = tuple(sorted((*kept, *new), key=lambda device: device.name))
        clients[client.name] = clients.get(client.name, client).model_copy(update={"devices": devices})
    ordered = tuple(sorted(clients.values(), key=lambda client: client.name))
    return bundle.model_copy(update={"clients": ordered})


def render_routes(bundle: Bundle) -> dict[str, str]:
    """Return the names in `peers/` and the clients they lead to.

    Raises:
        BundleError: Naming the address that no name can express.
    """
    routes: dict[str, str] = {}
    prefix = route6_prefix(bundle.tunnel.network6)
    for i, client in enumerate(bundle.clients):
        for j, device in enumerate(client.devices):
            path = f"clients.{i}.devices.{j}.address6"
            routes[route4(device.address4)] = client.name
            routes[route6(device.address6, prefix, path)] = client.name
    return routes


def _interface(bundle: Bundle, public_key: str) -> Interface:
    tunnel = bundle.tunnel
    addresses = set()
    for name in ("4", "6"):
        address = ipaddress.ip_address(getattr(tunnel, f"address{name}"))
        network = ipaddress.ip_network(getattr(tunnel, f"network{name}"))
        # The prefix makes the kernel's route to the peers, so the address must lie inside it.
        if address not in network:
            raise BundleError("outside the tunnel network", field=f"tunnel.address{name}")
        addresses.add(f"{address}/{network.prefixlen}")
    return Interface(public_key, tunnel.listen_port, frozenset(addresses), tunnel.mtu)


def render_peer(peer: Device | Guest) -> Peer:
    """Return the WireGuard peer of a device or a guest."""
    allowed = frozenset({f"{peer.address4}/32", f"{peer.address6}/128"})
    return Peer(peer.public_key, peer.preshared_key, allowed)


def _web(bundle: Bundle, settings: NodeSettings, paths: NodePaths) -> Web:
    if bundle.tls is None:
        return Web()
    certificate = bundle.tls.certificate
    return Web(True, nginx.render_config(bundle, settings, paths, certificate), certificate)

"""Renders what a client takes home when a device is added. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import wgconfig

from appliance.core.bundle import Tunnel
from appliance.core.client_configuration import PRIVATE_KEY_PLACEHOLDER, DeviceConfiguration
from appliance.core.receipt import Keyring

KEEPALIVE_S = 25  # keeps the NAT mapping of a client's router open; wg(8) names this value as sensible


@dataclass(frozen=True)
class PublicMaterial:
    """What every client gets: the CA, and the keys that verify receipts, heads of their log, and its witnesses' cosignatures."""

    ca_pem: str
    keyring: Keyring
    log_keys: tuple[str, ...]
    witness_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeEnd:
    """The node as a client's WireGuard sees it."""

    endpoint: str
    public_key: str
    tunnel: Tunnel


def render_configuration(
    *,
    client: str,
    device: str,
    public_key: str,
    addresses: tuple[str, str],
    node: NodeEnd,
    preshared_key: str,
    material: PublicMaterial,
    pseudonym_key: str,
    pin_ids: tuple[str, ...],
) -> DeviceConfiguration:
    """Return the configuration of one device, but for its token."""
    return DeviceConfiguration(
        client=client,
        device=device,
        public_key=public_key,
        base_url=f"https://{node.tunnel.address4}/v1",
        wireguard_conf=render_wireguard(addresses, node, preshared_key),
        ca_pem=material.ca_pem,
        keyring=material.keyring,
        log_keys=material.log_keys,
        witness_keys=material.witness_keys,
        pseudonym_key=pseudonym_key,
        pin_ids=pin_ids,
    )


def render_wireguard(addresses: tuple[str, str], node: NodeEnd, preshared_key: str) -> str:
    """Return wg-quick(8) text. Only the node's own tunnel addresses are routed into the tunnel."""
    conf = wgconfig.WGConfig()
    conf.initialize_file()
    address4, address6 = addresses
    conf.add_attr(None, "PrivateKey", PRIVATE_KEY_PLACEHOLDER)
    conf.add_attr(None, "Address", f"{address4}/32, {address6}/128")
    conf.add_attr(None, "MTU", node.tunnel.mtu)
    conf.add_peer(node.public_key)
    conf.add_attr(node.public_key, "PresharedKey", preshared_key)
    conf.add_attr(node.public_key, "AllowedIPs", f"{node.tunnel.address4}/32, {node.tunnel.address6}/128")
    conf.add_attr(node.public_key, "Endpoint", node.endpoint)
    conf.add_attr(node.public_key, "PersistentKeepalive", KEEPALIVE_S)
    return "\n".join(conf.lines) + "\n"

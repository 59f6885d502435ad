"""WireGuard's own text formats: `wg show IFACE dump` and the file that `wg addconf` reads. Pure.

Source: wg(8), sections `show` and CONFIGURATION FILE FORMAT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.core.errors import HostError
from netops.model import Peer

_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
_NETWORK = re.compile(r"[0-9a-f.:]{2,39}/[0-9]{1,3}")


@dataclass(frozen=True)
class PeerStatus:
    """A peer as the interface reports it; `handshake_at_s` is Unix time, 0 if there was none."""

    peer: Peer
    handshake_at_s: int


@dataclass(frozen=True)
class Dump:
    """One interface as `wg show IFACE dump` reports it. The private key on its first line is not kept."""

    public_key: str | None
    listen_port: int
    peers: tuple[PeerStatus, ...]


def parse_dump(text: str) -> Dump:
    """Parse the output of `wg show IFACE dump`.

    Raises:
        HostError: If it is not in that format.
    """
    first, *rest = text.splitlines() or [""]
    try:
        _private, public, port, _fwmark = first.split("\t")
        peers = tuple(_parse_peer(line) for line in rest)
        return Dump(None if public == "(none)" else public, int(port), peers)
    except ValueError as error:
        # Not the line itself: it may hold the private key.
        raise HostError("`wg show dump` printed what wg(8) does not describe") from error


def _parse_peer(line: str) -> PeerStatus:
    public, preshared, _endpoint, allowed, handshake, _received, _sent, keepalive = line.split("\t")
    peer = Peer(
        public_key=public,
        preshared_key=None if preshared == "(none)" else preshared,
        allowed_ips=frozenset() if allowed == "(none)" else frozenset(allowed.split(",")),
        keepalive_s=0 if keepalive == "off" else int(keepalive),
    )
    return PeerStatus(peer, int(handshake))


def render_peers(peers: Iterable[Peer]) -> bytes:
    """Return the text for `wg addconf`: each peer gets exactly these allowed IPs, this key and no keepalive.

    `wg addconf` replaces the allowed IPs of a peer that is there and touches no other peer and no session (wg's
    config.c sets WGPEER_REPLACE_ALLOWEDIPS; measured with the kernel's userspace twin).
    """
    return "".join(_render_peer(peer) for peer in peers).encode("ascii")


def _render_peer(peer: Peer) -> str:
    lines = ["[Peer]", f"PublicKey = {_quote(_KEY, peer.public_key)}"]
    if peer.preshared_key is not None:
        lines.append(f"PresharedKey = {_quote(_KEY, peer.preshared_key)}")
    networks = (_quote(_NETWORK, network) for network in sorted(peer.allowed_ips))
    lines.append(f"AllowedIPs = {', '.join(networks)}")
    lines.append(f"PersistentKeepalive = {peer.keepalive_s or 'off'}")
    return "\n".join(lines) + "\n"


def _quote(pattern: re.Pattern[str], value: str) -> str:
    """Return the value if it cannot be read as anything else in this format."""
    if not pattern.fullmatch(value):
        raise HostError("a key or network has no form that WireGuard's file format can hold")
    return value

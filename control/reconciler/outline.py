"""What one bundle changes against the one before, in lines. Pure.

Bundles are not kept, since they hold pre-shared keys. What is kept of the last one is its outline: a digest of each part, which says
whether the part changed and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from appliance.core.bundle import Bundle, Client

MAX_LINES: Final = 50
Outline = Mapping[str, Any]


def outline_of(bundle: Bundle) -> dict[str, Any]:
    """Return the outline of a bundle."""
    return {
        "seats": bundle.seats,
        "drain": bundle.drain,
        "tunnel": _digest(bundle.tunnel.canonical_bytes()),
        "certificate": _digest(bundle.tls.canonical_bytes()) if bundle.tls else "",
        "pins": {pin.name: pin.pin_id for pin in bundle.pins},
        "clients": {client.name: _client(client) for client in bundle.clients},
    }


def describe_changes(old: Outline, new: Outline) -> list[str]:
    """Return what changes from one outline to the other; of an empty one, that this is the first. At most `MAX_LINES`."""
    if not old:
        return [f"the first bundle: {len(new['clients'])} clients, {len(new['pins'])} models"]
    lines = [*_scalars(old, new), *_pins(old["pins"], new["pins"]), *_clients(old["clients"], new["clients"])]
    if len(lines) > MAX_LINES:
        return [*lines[: MAX_LINES - 1], f"and {len(lines) - MAX_LINES + 1} more"]
    return lines


def _client(client: Client) -> dict[str, Any]:
    return {"devices": len(client.devices), "digest": _digest(client.canonical_bytes())}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _scalars(old: Outline, new: Outline) -> Iterator[str]:
    if old["seats"] != new["seats"]:
        yield f"seats: {old['seats']}, now {new['seats']}"
    if old["drain"] != new["drain"]:
        yield "drained" if new["drain"] else "serving again"
    if old["tunnel"] != new["tunnel"]:
        yield "the tunnel changed"
    if old["certificate"] != new["certificate"]:
        yield "the certificate changed"


def _pins(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    yield from (f"model {name}: retired" for name in sorted(old.keys() - new.keys()))
    yield from (
        f"model {name}: pinned as {pin_id[:16]}"
        for name, pin_id in sorted(new.items())
        if old.get(name) != pin_id
    )


def _clients(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"client {name}: removed" for name in sorted(old.keys() - new.keys()))
    for name, client in sorted(new.items()):
        before = old.get(name)
        if before is None:
            yield f"client {name}: added, {client['devices']} devices"
        elif before["devices"] != client["devices"]:
            yield f"client {name}: {client['devices']} devices, before {before['devices']}"
        elif before != client:
            yield f"client {name}: changed"

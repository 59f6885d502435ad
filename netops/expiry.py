"""What of a bundle has come to its end by a given time. Pure."""

from __future__ import annotations

from appliance.core.bundle import Bundle

Ended = tuple[frozenset[str], frozenset[str]]
"""Public keys of devices, and names of clients that ended with all of theirs: as `prune` takes them."""


def find_ended(bundle: Bundle, now: float) -> Ended:
    """Return the keys and clients of a bundle whose end has come.

    Args:
        bundle: Verified.
        now: Seconds since 1970.
    """
    clients = frozenset(c.name for c in bundle.clients if c.expires_at is not None and c.expires_at <= now)
    keys = frozenset(
        device.public_key
        for client in bundle.clients
        for device in client.devices
        if device.expires_at is not None and device.expires_at <= now
    )
    return keys, clients

"""Which devices are connected, as long as that can be said and no longer.

What a node said last stands in one row, without endpoints, traffic or times of handshakes, and is replaced by what it says next. Nothing is
kept of before: who was connected yesterday is in no row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from appliance.core.health import CONNECTED_S, Peers
from control.fleet.models import Node, PeerReport

FORGOTTEN_AFTER: Final = timedelta(seconds=CONNECTED_S)


class PeerStatus(StrEnum):
    """A device, as the kernel of its node knows it."""

    CONNECTED = "connected"  # a handshake in the last three minutes
    STALE = "stale"  # an older one
    NEVER_SEEN = "never_seen"  # none since the tunnel came up


def record_peers(node: Node, peers: Peers, now: datetime) -> None:
    """Replace what the node said before."""
    said = {"at": now, "peers": peers.model_dump(mode="json")}
    PeerReport.objects.update_or_create(node=node, defaults=said)


def forget_peers(now: datetime) -> int:
    """Delete what was said too long ago; return of how many nodes."""
    return PeerReport.objects.filter(at__lt=now - FORGOTTEN_AFTER).delete()[0]


def statuses(nodes: Iterable[int], now: datetime) -> dict[int, dict[str, PeerStatus]]:
    """Return for each of these nodes (by key) that has said something lately: public key to status. One query.

    A key that is not in a node's answer was never seen; a node that is not in the answer says nothing of any.
    """
    rows = PeerReport.objects.filter(node__in=set(nodes), at__gte=now - FORGOTTEN_AFTER)
    return {row.node_id: _statuses(row.peers, (now - row.at).total_seconds()) for row in rows}


def _statuses(peers: dict[str, Any], passed_s: float) -> dict[str, PeerStatus]:
    # Not parsed again: ten thousand keys were, when the node said them, and this is read for every page of devices.
    found = dict.fromkeys(peers["stale"], PeerStatus.STALE)
    for fresh in peers["connected"]:
        status = PeerStatus.CONNECTED if passed_s <= fresh["left_s"] else PeerStatus.STALE
        found |= dict.fromkeys(fresh["public_keys"], status)
    return found

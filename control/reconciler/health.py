"""Pulls what a node says of itself: its health, and which of its peers are connected."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.utils import timezone

from appliance.core.errors import RefusedError
from control.audit.conditions import OF_HEALTH, judge_health, note_conditions
from control.fleet.history import record_health
from control.fleet.models import Node
from control.fleet.peers import record_peers
from provisioning.node import NodeClient


def pull_health(node: Node, client: NodeClient) -> None:
    """Ask a node how it is, keep it, and raise alarms over what is wrong.

    Raises:
        RefusedError: If its answer is not what the protocol says, or another node's.
        UnavailableError: If it does not answer.
    """
    sent_ms = _now_ms()
    health = client.health()
    offset_ms = clock_offset_ms(health.clock, sent_ms, _now_ms())
    if health.node != node.name:
        raise RefusedError("another node's health", field="node")
    now = timezone.now()
    record_health(node, health, offset_ms, now)
    node.refresh_from_db(fields=["conditions", "duty"])
    note_conditions(node, OF_HEALTH, judge_health(health, offset_ms, node.conditions), now)
    record_peers(node, client.peers(), timezone.now())


def clock_offset_ms(clock: str, sent_ms: int, received_ms: int) -> int:
    """Return by how much a node's clock is off at least. Pure.

    The node read it at some moment between our question and its answer: a clock within those two is right as far as anybody can tell,
    however slow the connection was.

    Args:
        clock: The node's, as a timestamp's text.
        sent_ms, received_ms: Control's own when it asked and when the answer came, Unix time in milliseconds.

    Returns:
        Milliseconds, positive if the node's clock is ahead.
    """
    node_ms = round(datetime.strptime(clock, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000)
    return min(0, node_ms - sent_ms) or max(0, node_ms - received_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

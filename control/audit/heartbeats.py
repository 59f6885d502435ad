"""Heartbeats of nodes: a journal that was replaced shows at the next one, and a node that falls silent is an alarm."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from appliance.core.errors import RefusedError
from appliance.core.heartbeat import Heartbeat, verify_heartbeat
from appliance.core.names import random_id
from control.audit.models import Alarm, AlarmKind
from control.audit.services import raise_alarm
from control.fleet.models import Duty, Node
from provisioning.node import NodeClient


def take_heartbeat(node: Node, client: NodeClient) -> Heartbeat | None:
    """Ask a node what its journal is; return it, or None with an alarm if it is not signed with the node's key.

    Raises:
        RefusedError: If the node's answer is not what the protocol says.
        UnavailableError: If the node does not answer.
    """
    nonce = random_id()
    signed = client.heartbeat(nonce)
    heartbeat = signed.heartbeat
    try:
        verify_heartbeat(signed, node.receipt_public_key)
        if (heartbeat.node, heartbeat.nonce) != (node.name, nonce):
            raise RefusedError("another heartbeat than the one that was asked for", field="nonce")
    except RefusedError:
        raise_alarm(node, AlarmKind.BAD_SIGNATURE, "heartbeat")
        return None
    facts = heartbeat.model_dump(mode="json", exclude={"nonce"})
    Node.objects.filter(pk=node.pk).update(heartbeat=facts, heartbeat_at=timezone.now())
    return heartbeat


def watch_silence(silent: timedelta) -> int:
    """Raise an alarm, once, over each node whose last heartbeat is so long ago; return how many were raised."""
    raised = 0
    watched = Node.objects.exclude(duty=Duty.MAINTENANCE)  # whoever works on it knows
    for node in watched.filter(heartbeat_at__lt=timezone.now() - silent):
        since = node.heartbeat_at.isoformat(timespec="seconds") if node.heartbeat_at else ""
        if not Alarm.objects.filter(node=node, kind=AlarmKind.NODE_SILENT, subject=since).exists():
            raise_alarm(node, AlarmKind.NODE_SILENT, since)
            raised += 1
    return raised

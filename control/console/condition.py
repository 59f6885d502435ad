"""How nodes are: what control wants of them, what they accepted, when they were last heard, in one word and a sentence.

What a node says about itself is its own word: a figure that is not there or is no figure is left out, never trusted to have a shape.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.db.models import OuterRef, QuerySet, Subquery

from control.fleet.models import BundleRecord, Node

CERTIFICATE_WARNING: Final = timedelta(days=30)
_MISSED_PASSES: Final = 3  # without contact before a node counts as out of reach
_SLOWEST: Final = timedelta(seconds=90)  # a pass may take that long before anybody worries
_UNDER_WAY: Final = timedelta(seconds=60)  # a bundle may take that long to arrive

ADVICE: Final = {
    "unavailable": "See that it is on and that sshd answers control on the management network.",
    "bundle_refused": "The node refuses what control signed: look at its agent's log, and at whether the epoch was raised after a restore.",
    "pin_mismatch": "A model file differs from its pin: look at the disk of the management machine.",
    "refused": "The node's answer is not what the protocol says: compare the versions of node and control.",
    "host": "The node's machine lacks something: run appliance doctor there.",
    "internal": "Look at the log of the reconciler's service.",
}


class Condition(NamedTuple):
    """How a node is.

    Attributes:
        level: good, warn or bad.
        word: For a list.
        detail: What it means; empty if all is well.
        do: What to do next; empty if all is well.
    """

    level: str
    word: str
    detail: str = ""
    do: str = ""


class NodeView(NamedTuple):
    """A node with the bundles that matter.

    Attributes:
        node: Its row.
        wanted: The newest bundle that was rendered for it.
        accepted: The newest one that it accepted.
        condition: How it is.
    """

    node: Node
    wanted: BundleRecord | None
    accepted: BundleRecord | None
    condition: Condition

    @property
    def applied(self) -> str:
        """Epoch and generation that the node says it stands at; empty if it did not say."""
        epoch, generation = (figure(self.node.health, "accepted", name) for name in ("epoch", "generation"))
        return "" if epoch is None or generation is None else f"{epoch}.{generation}"

    @property
    def behind(self) -> int:
        """How many generations it is behind."""
        if self.wanted is None:
            return 0
        if self.accepted is None or self.accepted.epoch != self.wanted.epoch:
            return int(self.wanted.generation)
        return int(self.wanted.generation - self.accepted.generation)


def observe_nodes(nodes: QuerySet[Node], now: datetime) -> list[NodeView]:
    """Return nodes with their bundles. Two queries."""
    newest = BundleRecord.objects.filter(node=OuterRef("pk")).order_by("-epoch", "-generation").values("pk")
    rows = nodes.annotate(
        wanted_pk=Subquery(newest[:1]), accepted_pk=Subquery(newest.filter(accepted_at__isnull=False)[:1])
    )
    found = list(rows)
    bundles = BundleRecord.objects.in_bulk(
        {pk for node in found for pk in (node.wanted_pk, node.accepted_pk) if pk}
    )
    views = []
    for node in found:
        wanted, accepted = bundles.get(node.wanted_pk), bundles.get(node.accepted_pk)
        views.append(NodeView(node, wanted, accepted, judge(node, wanted, now)))
    return views


def judge(node: Node, wanted: BundleRecord | None, now: datetime) -> Condition:
    """Return how a node is; the worst thing that is known leads."""
    if node.last_seen_at is None:
        return Condition("warn", "not met yet", "Control has not reached it.", ADVICE["unavailable"])
    silent = max(_MISSED_PASSES * timedelta(seconds=settings.CONFIG.interval_s), _SLOWEST)
    if now - node.last_seen_at > silent:
        do = ADVICE["unavailable"] if node.last_error else "See that the reconciler's service runs."
        return Condition("bad", "no contact", "Its clients go on being served; changes wait.", do)
    if node.last_error:
        do = ADVICE.get(node.last_error, ADVICE["internal"])
        return Condition("bad", "pass failed", f"Its last pass ended with “{node.last_error}”.", do)
    if wanted is not None and wanted.accepted_at is None and now - wanted.created_at > _UNDER_WAY:
        return Condition("warn", "behind", "It has not accepted its newest bundle.", ADVICE["internal"])
    if node.certificate_expires_at and node.certificate_expires_at - now < CERTIFICATE_WARNING:
        detail = "Its TLS certificate ends soon; control renews it while it reaches the node."
        return Condition("warn", "certificate ends", detail, ADVICE["internal"])
    return _by_its_word(node.health)


def _by_its_word(health: Any) -> Condition:
    if fact(health, "notary", "up") is False:
        do = "Look at the notary's service on the node: without it no session opens."
        return Condition("bad", "no notary", "Its notary does not answer, so no receipts are written.", do)
    if any(free * 10 < total for _, free, total in disks_of(health)):
        do = "Make room on the node: receipts are fsynced before an answer ends."
        return Condition("warn", "disk fills", "Less than a tenth of a disk is free.", do)
    return Condition("good", "in step")


def fact(health: Any, *path: str) -> Any:
    """Return what a health report says under a path; None if it says nothing there."""
    for name in path:
        if not isinstance(health, dict):
            return None
        health = health.get(name)
    return health


def figure(health: Any, *path: str) -> int | None:
    """Return a whole number of a health report; None if there is none under the path."""
    value = fact(health, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def disks_of(health: Any) -> list[tuple[str, int, int]]:
    """Return the disks that a node tells of: name, free and total bytes."""
    disks = fact(health, "disks")
    found = []
    for disk in disks if isinstance(disks, list) else []:
        name, free, total = fact(disk, "name"), figure(disk, "free_bytes"), figure(disk, "total_bytes")
        if isinstance(name, str) and free is not None and total:
            found.append((name, free, total))
    return found


def cells_of(health: Any) -> list[tuple[str, int]]:
    """Return the cells that a node says are running: the client's name and the resident memory in bytes."""
    cells = fact(health, "cells")
    return [
        (cell["client"], figure(cell, "rss_bytes") or 0)
        for cell in (cells if isinstance(cells, list) else [])
        if isinstance(cell, dict) and isinstance(cell.get("client"), str)
    ]

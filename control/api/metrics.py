"""The fleet for Prometheus, out of what the reconciler has stored: a scrape reaches no node and changes nothing.

Labels are names of nodes, file systems, GPUs' numbers and words of closed sets, so the number of series is bounded by the fleet. Nothing is
about a client or a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.views import APIView

from appliance import __version__
from appliance.core.health import Health
from control.api.exposition import CONTENT_TYPE, Family, render
from control.audit.api import OneForm
from control.audit.models import Alarm, AlarmKind
from control.fleet.history import latest_health
from control.fleet.models import BundleRecord, Duty, Node

Read = Callable[[Health], float | None]

_OF_HEALTH: Final[tuple[tuple[str, str, Read], ...]] = (
    ("uptime_seconds", "Time since the machine was booted.", lambda h: h.uptime_s),
    ("cpus", "Logical processors.", lambda h: h.cores),
    ("load1", "Load over one minute.", lambda h: h.load[0] / 1000),
    ("memory_total_bytes", "Main memory.", lambda h: h.memory.total_bytes),
    ("memory_available_bytes", "Main memory that new work can have.", lambda h: h.memory.available_bytes),
    ("swap_enabled", "Whether swap is on; cells refuse to run then.", lambda h: h.swap),
    ("temperature_celsius", "Hottest sensor outside of GPUs.", lambda h: h.temperature_c),
    ("cells", "Running cells.", lambda h: len(h.cells)),
    (
        "cells_confined",
        "Running cells that the kernel shows as confined.",
        lambda h: sum(c.confined for c in h.cells),
    ),
    ("seats", "Cells that may run at once.", lambda h: h.seats.total),
    ("seats_taken", "Seats that a cell holds.", lambda h: h.seats.taken),
    ("queue_connections", "Connections that wait for a cell.", lambda h: h.queue),
    ("sessions", "Open sessions.", lambda h: h.notary.sessions),
    ("tokens_per_second", "Tokens written over the last minutes, coarse.", lambda h: h.tokens_per_s),
    ("tunnel_up", "Whether the WireGuard interface carries packets.", lambda h: h.tunnel.up),
    ("nginx_up", "Whether NGINX runs.", lambda h: h.nginx),
    ("notary_up", "Whether the notary answers.", lambda h: h.notary.up),
    ("journal_bytes", "Size of the notary's journal.", lambda h: h.notary.bytes),
    ("journal_max_bytes", "Size that the notary's journal may have.", lambda h: h.notary.max_bytes),
    ("receipts_waiting", "Receipts that control has not taken yet.", lambda h: h.notary.waiting),
)


class Metrics(APIView):
    """`/metrics`: the whole fleet."""

    right = "fleet.view_healthsample"
    content_negotiation_class = OneForm  # Prometheus asks for other forms first

    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002 - DRF's signature
        """Return the fleet's state in Prometheus' text format."""
        return HttpResponse(render(observe_fleet(timezone.now())), content_type=CONTENT_TYPE)


def observe_fleet(now: datetime) -> Iterator[Family]:
    """Yield all metrics. Two queries, however many nodes there are."""
    nodes = list(_nodes())
    reports = [(node.name, health) for node in nodes if (health := latest_health(node, now)) is not None]
    build = Family("appliance_build_info", "Version of control.")
    build.add(1, version=__version__)
    yield build
    yield _alarms()
    yield from _passes(nodes)
    for name, text, read in _OF_HEALTH:
        family = Family(f"appliance_node_{name}", text)
        for node, health in reports:
            family.add(read(health), node=node)
        yield family
    yield from _disks(reports)
    yield from _gpus(reports)
    yield from _counted(reports)


def _nodes() -> QuerySet[Any]:
    newest = BundleRecord.objects.filter(node=OuterRef("pk")).order_by("-pk")
    accepted = newest.filter(accepted_at__isnull=False)
    return Node.objects.defer("certificate").annotate(
        generation=Subquery(newest.values("generation")[:1]),
        accepted_generation=Subquery(accepted.values("generation")[:1]),
    )


def _alarms() -> Family:
    counted = dict(Alarm.objects.order_by().values_list("kind").annotate(Count("pk")))
    family = Family("appliance_alarms", "Alarms there are, by kind.")
    for kind in AlarmKind:
        family.add(counted.get(kind.value, 0), kind=kind.value)
    return family


def _passes(nodes: Iterable[Any]) -> Iterator[Family]:
    """Yield what control itself knows of each node, reachable or not."""
    up = Family("appliance_node_up", "Whether the last pass went well.")
    seen = Family("appliance_node_last_seen_timestamp_seconds", "When the node answered last.")
    beat = Family("appliance_node_heartbeat_timestamp_seconds", "When its notary signed last.")
    health = Family("appliance_node_health_timestamp_seconds", "When it said last how it is.")
    ends = Family("appliance_node_certificate_expiry_timestamp_seconds", "When its certificate ends.")
    wanted = Family("appliance_node_bundle_generation", "Newest generation of its bundle.")
    held = Family("appliance_node_bundle_accepted_generation", "Newest generation that it accepted.")
    drift = Family("appliance_node_drift_passes", "Passes in a row that left it at another bundle.")
    offset = Family("appliance_node_clock_offset_seconds", "By how much its clock is off at least.")
    duty = Family("appliance_node_duty", "What the node is there for: 1 for the one that holds.")
    conditions = Family("appliance_node_conditions", "Things that are wrong with it now.")
    for node in nodes:
        name = node.name
        up.add(node.last_seen_at is not None and not node.last_error, node=name)
        seen.add(_unix(node.last_seen_at), node=name)
        beat.add(_unix(node.heartbeat_at), node=name)
        health.add(_unix(node.health_at), node=name)
        ends.add(_unix(node.certificate_expires_at), node=name)
        wanted.add(node.generation, node=name)
        held.add(node.accepted_generation, node=name)
        drift.add(node.drift_passes, node=name)
        offset.add(node.clock_offset_ms / 1000 if node.health_at else None, node=name)
        conditions.add(len(node.conditions), node=name)
        for one in Duty:
            duty.add(node.duty == one, node=name, duty=one.value)
    yield from (up, seen, beat, health, ends, wanted, held, drift, offset, duty, conditions)


def _disks(reports: Iterable[tuple[str, Health]]) -> Iterator[Family]:
    total = Family("appliance_node_disk_total_bytes", "Size of a file system.")
    free = Family("appliance_node_disk_free_bytes", "What of a file system is free.")
    for node, health in reports:
        for disk in health.disks:
            total.add(disk.total_bytes, node=node, disk=disk.name)
            free.add(disk.free_bytes, node=node, disk=disk.name)
    yield from (total, free)


def _gpus(reports: Iterable[tuple[str, Health]]) -> Iterator[Family]:
    total = Family("appliance_node_gpu_memory_total_bytes", "Memory of a GPU.")
    used = Family("appliance_node_gpu_memory_used_bytes", "What of a GPU's memory is used.")
    busy = Family("appliance_node_gpu_utilization_ratio", "Share of time in which a GPU computed.")
    heat = Family("appliance_node_gpu_temperature_celsius", "Temperature of a GPU.")
    for node, health in reports:
        for gpu in health.gpus:
            labels = {"node": node, "gpu": str(gpu.index)}
            total.add(gpu.memory_total_bytes, **labels)
            used.add(gpu.memory_used_bytes, **labels)
            percent = gpu.utilisation_percent
            busy.add(None if percent is None else percent / 100, **labels)
            heat.add(gpu.temperature_c, **labels)
    yield from (total, used, busy, heat)


def _counted(reports: Iterable[tuple[str, Health]]) -> Iterator[Family]:
    peers = Family("appliance_node_peers", "WireGuard peers, by their last handshake.")
    models = Family("appliance_node_model_files", "Pinned model files, by what reading them showed.")
    for node, health in reports:
        for status in ("connected", "stale", "never_seen"):
            peers.add(getattr(health.tunnel, status), node=node, status=status)
        for state in ("verified", "reading", "failed"):
            models.add(sum(model.state == state for model in health.models), node=node, state=state)
    yield from (peers, models)


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else round(moment.timestamp(), 3)

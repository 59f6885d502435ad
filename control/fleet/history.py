"""Health of nodes over time: one sample for each minute of a day and each hour of a month, and nothing older."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db.models import Max
from django.db.models.functions import TruncHour
from django.utils import timezone

from appliance.core.errors import RefusedError
from appliance.core.health import Gpu, Health
from control.fleet.models import HealthSample, Node

MINUTES_FOR: Final = timedelta(days=1)
HOURS_FOR: Final = timedelta(days=30)
STALE_AFTER: Final = timedelta(minutes=5)
"""A report that is older is not shown as how the node is now."""

FIGURES: Final = tuple(
    field.name for field in HealthSample._meta.concrete_fields if field.name not in {"id", "node", "at"}
)
"""What there are charts of."""


class Point(NamedTuple):
    """One point of a chart; `value` is None where the node had nothing to tell."""

    at: datetime
    value: int | None


def record_health(node: Node, health: Health, clock_offset_ms: int, now: datetime) -> None:
    """Keep a report as the node's last one, and its figures as the sample of this minute."""
    Node.objects.filter(pk=node.pk).update(
        health=health.model_dump(mode="json"), health_at=now, clock_offset_ms=clock_offset_ms
    )
    minute = now.replace(second=0, microsecond=0)
    figures = sample_of(health, clock_offset_ms)
    _, first_of_minute = HealthSample.objects.update_or_create(node=node, at=minute, defaults=figures)
    if first_of_minute:
        thin(node, now)


def sample_of(health: Health, clock_offset_ms: int) -> dict[str, int | None]:
    """Return the figures of a report. Pure."""
    gpus = health.gpus
    temperatures = [health.temperature_c, *(gpu.temperature_c for gpu in gpus)]
    utilised = [gpu.utilisation_percent for gpu in gpus if gpu.utilisation_percent is not None]
    memory = health.memory
    return {
        "cpu_permille": health.load[0] // max(1, health.cores),
        "memory_permille": _used(memory.available_bytes, memory.total_bytes),
        "disk_permille": max((_used(disk.free_bytes, disk.total_bytes) for disk in health.disks), default=0),
        "temperature_c": max((t for t in temperatures if t is not None), default=None),
        "gpu_permille": 10 * sum(utilised) // len(utilised) if utilised else None,
        "gpu_memory_permille": _gpu_memory(gpus),
        "cells": len(health.cells),
        "seats_taken": health.seats.taken,
        "seats_total": health.seats.total,
        "sessions": health.notary.sessions,
        "queue": health.queue,
        "tokens_per_s": health.tokens_per_s,
        "peers_connected": health.tunnel.connected,
        "clock_offset_ms": clock_offset_ms,
    }


def thin(node: Node, now: datetime) -> int:
    """Delete samples that are not kept any more; return how many. Each hour keeps its last one."""
    samples = HealthSample.objects.filter(node=node)
    deleted, _ = samples.filter(at__lt=now - HOURS_FOR).delete()
    # Whole hours: half of one would keep its last sample now and another later.
    day_ago = (now - MINUTES_FOR).replace(minute=0, second=0, microsecond=0)
    old = samples.filter(at__lt=day_ago).order_by()
    hours = old.annotate(hour=TruncHour("at")).values("hour").annotate(last=Max("at")).values("last")
    thinned, _ = old.exclude(at__in=hours).delete()
    return deleted + thinned


def latest_health(node: Node, now: datetime | None = None) -> Health | None:
    """Return how a node is; None if it has not said so for `STALE_AFTER`."""
    if node.health_at is None or (now or timezone.now()) - node.health_at > STALE_AFTER:
        return None
    return Health.parse(node.health)


def series(node: Node, figure: str, since: datetime) -> list[Point]:
    """Return one figure over time, the oldest first: at most some 2,200 points. One query.

    Raises:
        RefusedError: If there is no such figure.
    """
    if figure not in FIGURES:
        raise RefusedError("there is no such figure", field="figure", hint=f"one of: {', '.join(FIGURES)}")
    rows = HealthSample.objects.filter(node=node, at__gte=since).order_by("at").values_list("at", figure)
    return [Point(*row) for row in rows]


def table(node: Node, since: datetime) -> list[dict[str, Any]]:
    """Return all figures over time, the oldest first. One query."""
    return list(HealthSample.objects.filter(node=node, at__gte=since).order_by("at").values("at", *FIGURES))


def _gpu_memory(gpus: tuple[Gpu, ...]) -> int | None:
    """Return how much of all GPUs' memory is used; None if none tells."""
    pairs = [(gpu.memory_used_bytes, gpu.memory_total_bytes) for gpu in gpus]
    told = [(used, total) for used, total in pairs if used is not None and total]
    return 1000 * sum(used for used, _ in told) // sum(total for _, total in told) if told else None


def _used(free: int, total: int) -> int:
    return 1000 - min(1000, 1000 * free // total) if total else 0

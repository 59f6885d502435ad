"""Health of nodes over time: what is kept, how finely, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from control_cast import node_request
from django.db import connection
from django.test.utils import CaptureQueriesContext
from simulated_node import GIB, report

from appliance.core.errors import RefusedError
from appliance.core.health import Health
from control.fleet.history import FIGURES, latest_health, record_health, sample_of, series, table, thin
from control.fleet.models import HealthSample, Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 4, 12, 30, 40, tzinfo=UTC)


def record(node: Node, now: datetime, **changes: object) -> None:
    record_health(node, Health.parse(report(**changes)), 0, now)
    node.refresh_from_db()


def fill(node: Node, first: datetime, last: datetime, step: timedelta) -> int:
    figures = sample_of(Health.parse(report()), 0)
    count = (last - first) // step + 1
    rows = (HealthSample(node=node, at=first + n * step, **figures) for n in range(count))
    return len(HealthSample.objects.bulk_create(rows))


def test_a_report_becomes_figures() -> None:
    assert sample_of(Health.parse(report()), -7) == {
        "cpu_permille": 250,
        "memory_permille": 250,
        "disk_permille": 600,
        "temperature_c": 55,
        "gpu_permille": 350,
        "gpu_memory_permille": 250,
        "cells": 1,
        "seats_taken": 1,
        "seats_total": 2,
        "sessions": 3,
        "queue": 0,
        "tokens_per_s": 20,
        "peers_connected": 1,
        "clock_offset_ms": -7,
    }
    assert set(FIGURES) == set(sample_of(Health.parse(report()), 0))


def test_what_a_machine_does_not_have_is_no_number() -> None:
    bare = report(gpus=[{"index": 0}], temperature_c=None, disks=[])
    figures = sample_of(Health.parse(bare), 0)
    assert figures["temperature_c"] is figures["gpu_permille"] is figures["gpu_memory_permille"] is None
    assert figures["disk_permille"] == 0


def test_a_minute_has_one_sample_and_its_last_report(node: Node) -> None:
    for second, queue in ((1, 5), (20, 6), (59, 7)):
        record(node, NOW.replace(second=second), queue=queue)
    assert list(node.samples.values_list("at", "queue")) == [(NOW.replace(second=0), 7)]
    record(node, NOW + timedelta(minutes=1), queue=8)
    assert node.samples.count() == 2
    assert node.health["queue"] == 8


def test_after_a_day_an_hour_has_one_sample_and_after_a_month_none(node: Node) -> None:
    fill(node, NOW.replace(second=0) - timedelta(days=2), NOW.replace(second=0), timedelta(minutes=1))
    fill(node, NOW - timedelta(days=40), NOW - timedelta(days=3), timedelta(hours=1))
    thin(node, NOW)
    samples = list(node.samples.values_list("at", flat=True))
    assert min(samples) >= NOW - timedelta(days=30)
    day_ago = NOW.replace(minute=0, second=0) - timedelta(days=1)
    old = [at for at in samples if at < day_ago]
    assert len({at.replace(minute=0, second=0, microsecond=0) for at in old}) == len(old)
    thinned = [at for at in old if at > NOW - timedelta(days=2)]
    assert {at.minute for at in thinned} == {59}, "an hour keeps its last sample"
    fresh = [at for at in samples if at >= day_ago]
    assert len(fresh) == 24 * 60 + NOW.minute + 1, "the last day keeps every minute"
    assert thin(node, NOW) == 0, "what was thinned stays"


def test_a_node_has_a_bounded_number_of_samples(node: Node) -> None:
    """Whatever happened: a month of minutes, thinned as they come, once in an hour."""
    filled = fill(node, NOW - timedelta(days=4), NOW, timedelta(minutes=1))
    thin(node, NOW)
    assert filled > 5000
    assert node.samples.count() <= 25 * 60 + 3 * 24 + 1


def test_one_nodes_samples_are_nothing_to_anothers(node: Node) -> None:
    other = add_node(NewNode.parse(node_request("node-b", 78)))
    fill(other, NOW - timedelta(days=50), NOW - timedelta(days=49), timedelta(hours=1))
    thin(node, NOW)
    assert other.samples.exists()


def test_a_chart_is_one_query_however_long(node: Node, django_assert_num_queries: type) -> None:
    fill(node, NOW - timedelta(hours=10), NOW, timedelta(minutes=1))
    with django_assert_num_queries(1):
        points = series(node, "cpu_permille", NOW - timedelta(hours=1))
    assert [point.value for point in points] == [250] * 61
    assert points[0].at < points[-1].at
    with django_assert_num_queries(1):
        assert set(table(node, NOW - timedelta(hours=1))[0]) == {"at", *FIGURES}


def test_a_chart_of_nothing_is_refused(node: Node) -> None:
    for figure in ("node_id", "at", "health", "cpu_permille__gt"):
        with pytest.raises(RefusedError, match="figure"):
            series(node, figure, NOW)


def test_an_old_report_is_not_how_the_node_is_now(node: Node) -> None:
    assert latest_health(node, NOW) is None
    record(node, NOW)
    health = latest_health(node, NOW + timedelta(minutes=4))
    assert health is not None
    assert health.memory.total_bytes == 8 * GIB
    assert latest_health(node, NOW + timedelta(minutes=6)) is None


def test_a_report_costs_the_same_queries_however_long_the_history(node: Node) -> None:
    counts = []
    for days in (0, 3):
        fill(node, NOW - timedelta(days=days + 10), NOW - timedelta(days=days + 9), timedelta(hours=1))
        with CaptureQueriesContext(connection) as queries:
            record(node, NOW + timedelta(minutes=days))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 12

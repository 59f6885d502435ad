"""What is wrong with a node is an alarm once, when it begins; what is well raises none."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from control_cast import node_request
from django.conf import settings
from django.utils import timezone
from simulated_node import GIB, SimulatedNode, report

from appliance.core.errors import RefusedError
from appliance.core.health import Health
from appliance.core.receipt import timestamp
from appliance.core.signing import public_text
from control.audit.conditions import (
    DRIFT_PASSES,
    OF_HEALTH,
    OF_PASSES,
    Condition,
    judge_health,
    judge_passes,
    note_conditions,
)
from control.audit.heartbeats import watch_silence
from control.audit.models import Alarm, AlarmKind
from control.fleet.models import Duty, Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node, set_duty
from control.reconciler.health import clock_offset_ms
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.worker import NodeWorker
from provisioning.node import NodeClient

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)


def disk(free_permille: int, name: str = "state") -> dict[str, Any]:
    return {"name": name, "total_bytes": 1000 * GIB, "free_bytes": free_permille * GIB}


def judge(offset_ms: int = 0, held: tuple[str, ...] = (), **changes: Any) -> set[Condition]:
    return judge_health(Health.parse(report(**changes)), offset_ms, held)


def test_a_node_that_is_well_raises_nothing() -> None:
    assert judge() == set()
    assert judge(2000) == judge(-2000) == set()
    assert judge(disks=[disk(100)]) == set()
    assert judge(seats={"total": 2, "taken": 2}) == set(), "full, and nobody waits"
    assert judge(queue=3) == set(), "a cell is starting"
    assert judge(models=[{"sha256": "1" * 64, "state": "reading"}]) == set()


@pytest.mark.parametrize(
    ("changes", "offset_ms", "found"),
    [
        ({"disks": [disk(99), disk(500, "root")]}, 0, Condition(AlarmKind.DISK_FULL, "state")),
        ({}, 2001, Condition(AlarmKind.CLOCK_OFF)),
        ({}, -2001, Condition(AlarmKind.CLOCK_OFF)),
        (
            {"models": [{"sha256": "a" * 64, "state": "failed"}]},
            0,
            Condition(AlarmKind.DIGEST_FAILED, "a" * 16),
        ),
        ({"seats": {"total": 2, "taken": 2}, "queue": 1}, 0, Condition(AlarmKind.SEATS_EXHAUSTED)),
    ],
)
def test_each_thing_that_is_wrong_is_found(changes: dict[str, Any], offset_ms: int, found: Condition) -> None:
    assert judge(offset_ms, **changes) == {found}


def test_a_disk_at_the_limit_is_one_alarm_and_not_hundreds() -> None:
    full = Condition(AlarmKind.DISK_FULL, "state")
    assert judge(disks=[disk(110)]) == set()
    assert judge(held=(full.key,), disks=[disk(110)]) == {full}
    assert judge(held=(full.key,), disks=[disk(120)]) == set()


@pytest.mark.django_db
def test_a_condition_is_an_alarm_when_it_begins_and_is_gone_when_it_ends(node: Node) -> None:
    off = Condition(AlarmKind.CLOCK_OFF)
    for minute in range(5):
        note_conditions(node, OF_HEALTH, {off}, NOW + timedelta(minutes=minute))
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.subject, alarm.count) == ("clock_off", "2026-03-04", 1)
    node.refresh_from_db()
    assert node.conditions == {"clock_off": "2026-03-04T12:30:00+00:00"}
    note_conditions(node, OF_HEALTH, (), NOW + timedelta(minutes=6))
    node.refresh_from_db()
    assert node.conditions == {}
    assert Alarm.objects.count() == 1, "what happened stays on record"


@pytest.mark.django_db
def test_a_condition_that_flaps_is_one_alarm_a_day(node: Node) -> None:
    off = Condition(AlarmKind.CLOCK_OFF)
    for hour in range(0, 48, 3):
        note_conditions(node, OF_HEALTH, {off}, NOW + timedelta(hours=hour))
        note_conditions(node, OF_HEALTH, (), NOW + timedelta(hours=hour + 1))
    assert list(Alarm.objects.order_by("pk").values_list("subject", "count")) == [
        ("2026-03-04", 4),
        ("2026-03-05", 8),
        ("2026-03-06", 4),
    ]


@pytest.mark.django_db
def test_what_was_not_looked_at_stays(node: Node) -> None:
    note_conditions(node, OF_PASSES, {Condition(AlarmKind.NODE_DRIFTED)}, NOW)
    note_conditions(node, OF_HEALTH, (), NOW)
    assert set(node.conditions) == {"node_drifted"}


@pytest.mark.django_db
def test_a_node_that_somebody_works_on_raises_no_alarm(node: Node) -> None:
    Node.objects.update(duty=Duty.MAINTENANCE, heartbeat_at=NOW)
    node.refresh_from_db()
    note_conditions(node, OF_PASSES, {Condition(AlarmKind.NODE_UNREACHABLE)}, NOW)
    assert watch_silence(timedelta(minutes=5)) == 0
    assert not Alarm.objects.exists()
    set_duty(node, Duty.SERVING)
    note_conditions(node, OF_PASSES, {Condition(AlarmKind.NODE_UNREACHABLE)}, NOW)
    assert watch_silence(timedelta(minutes=5)) == 1
    assert set(Alarm.objects.values_list("kind", flat=True)) == {"node_unreachable", "node_silent"}


def test_a_node_is_unreachable_after_two_minutes() -> None:
    node = Node(created_at=NOW)
    assert judge_passes(node, NOW + timedelta(minutes=2)) == set()
    assert judge_passes(node, NOW + timedelta(minutes=3)) == {Condition(AlarmKind.NODE_UNREACHABLE)}
    node.last_seen_at = NOW + timedelta(minutes=2)
    assert judge_passes(node, NOW + timedelta(minutes=3)) == set()


def test_a_clock_is_right_if_it_lies_between_question_and_answer() -> None:
    """However slow the way was: the node's reading is bracketed, and an offset within the bracket cannot be told."""
    for _ in range(200):
        sent = random.randrange(10**12, 2 * 10**12)
        received = sent + random.randrange(20_000)
        reading = random.randrange(sent - 5000, received + 5000)
        clock = timestamp(datetime.fromtimestamp(reading / 1000, UTC))
        offset = clock_offset_ms(clock, sent, received)
        assert offset == (reading - sent if reading < sent else max(0, reading - received))


@pytest.fixture
def node_a(keys: ReconcilerKeys, transactional_db: None) -> SimulatedNode:
    add_node(NewNode.parse(node_request()))
    return SimulatedNode("node-a", public_text(keys.bundle))


def worker_of(node: SimulatedNode, keys: ReconcilerKeys) -> NodeWorker:
    paths = settings.PATHS
    return NodeWorker(
        node.name, NodeClient(node), keys, keyring=paths.keyring, log=paths.log, interval_s=60.0
    )


def kinds() -> set[str]:
    return set(Alarm.objects.values_list("kind", flat=True))


def test_a_pass_stores_health_and_raises_what_it_says(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    worker_of(node_a, keys).pass_once()
    row = Node.objects.get()
    assert row.health["uptime_s"] == 60
    assert row.samples.count() == 1
    assert kinds() == set()
    assert abs(row.clock_offset_ms) < 1000
    node_a.health = {"clock": timestamp(timezone.now() + timedelta(seconds=90))}
    worker_of(node_a, keys).pass_once()
    assert kinds() == {AlarmKind.CLOCK_OFF}
    assert 80_000 < Node.objects.get().clock_offset_ms <= 90_000


def test_another_nodes_health_is_refused(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    node_a.health = {"node": "node-b"}
    assert worker_of(node_a, keys).pass_once() == RefusedError.code
    assert Node.objects.get().health == {}


def test_a_thousand_hints_do_not_ask_a_thousand_times(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    worker = worker_of(node_a, keys)
    for _ in range(5):
        worker.pass_once()
    assert node_a.ops().count("health") == node_a.ops().count("peers") == 1
    assert node_a.ops().count("apply") == 5


def test_drift_that_lasts_is_an_alarm_and_ends_with_the_bundle_in_force(
    keys: ReconcilerKeys, node_a: SimulatedNode
) -> None:
    worker = worker_of(node_a, keys)
    node_a.fails_at_apply = RefusedError("no", field="clients")
    for _ in range(DRIFT_PASSES):
        worker.pass_once()
    assert Node.objects.get().drift_passes == DRIFT_PASSES
    assert kinds() == set()
    worker.pass_once()
    assert kinds() == {AlarmKind.NODE_DRIFTED}
    node_a.fails_at_apply = None
    worker.pass_once()
    row = Node.objects.get()
    assert (row.drift_passes, row.conditions) == (0, {})


def test_a_node_that_is_down_does_not_count_as_drifted(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    worker = worker_of(node_a, keys)
    worker.pass_once()
    node_a.down = True
    for _ in range(DRIFT_PASSES + 2):
        worker.pass_once()
    row = Node.objects.get()
    assert (row.drift_passes, row.conditions) == (0, {})
    Node.objects.update(last_seen_at=timezone.now() - timedelta(minutes=3))
    worker.pass_once()
    assert kinds() == {AlarmKind.NODE_UNREACHABLE}
    node_a.down = False
    worker.pass_once()
    assert Node.objects.get().conditions == {}


def test_a_slow_report_is_no_clock_that_is_off(
    keys: ReconcilerKeys, node_a: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = node_a.op_health

    def slow() -> dict[str, Any]:
        answer = honest()
        time.sleep(2.5)
        return answer

    monkeypatch.setattr(node_a, "op_health", slow)
    worker_of(node_a, keys).pass_once()
    assert kinds() == set()

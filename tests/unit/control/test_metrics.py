"""`/metrics`: what Prometheus' own parser makes of it, who may read it, and what is not in it."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from control_cast import OverTls, new_public_key, node_request
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient
from simulated_node import GIB, report

from appliance.core.health import Health
from control.api.exposition import Family, render
from control.audit.models import AlarmKind
from control.audit.services import raise_alarm
from control.clients.enrolment import add_device
from control.clients.models import Client
from control.clients.requests import NewDevice
from control.fleet.history import record_health
from control.fleet.models import BundleRecord, Duty, Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node, set_duty
from control.operators.roles import RIGHTS, Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token

pytestmark = pytest.mark.django_db

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
UNITS = ("bytes", "seconds", "celsius", "ratio")


def client_of(role: Role) -> OverTls:
    create_operator(NewOperator(name=role, role=role), None)
    text = create_token(NewToken(operator=role, name="scrape"))
    client = OverTls(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def scrape(client: APIClient) -> str:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
    answer = client.get("/metrics", HTTP_ACCEPT=accept)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return str(answer.content.decode())


def parse(text: str) -> Samples:
    """Read with Prometheus' parser, and hold it to what the parser lets pass: each series once, each family in one piece."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in {"gauge", "counter"}
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names)) == len(re.findall(r"^# HELP ", text, re.MULTILINE))
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"appliance_{name}", frozenset(labels.items())]


def tell(node: Node, **changes: Any) -> None:
    record_health(node, Health.parse(report(node.name, **changes)), -1500, timezone.now())
    Node.objects.filter(pk=node.pk).update(last_seen_at=timezone.now())


@pytest.fixture
def monitor(db: None) -> OverTls:
    return client_of(Role.MONITOR)


def test_the_fleet_is_told_in_numbers(monitor: OverTls, node: Node, acme: Client) -> None:
    tell(node)
    raise_alarm(node, AlarmKind.CLOCK_OFF, "today")
    set_duty(node, Duty.DRAINED)
    found = parse(scrape(monitor))
    of = {"node": "node-a"}
    assert value(found, "node_up", **of) == 1
    assert value(found, "node_memory_total_bytes", **of) == 8 * GIB
    assert value(found, "node_disk_free_bytes", **of, disk="receipts") == 4 * GIB
    assert value(found, "node_gpu_utilization_ratio", **of, gpu="0") == 0.35
    assert value(found, "node_load1", **of) == 1
    assert value(found, "node_seats", **of) == 2
    assert value(found, "node_seats_taken", **of) == 1
    assert value(found, "node_peers", **of, status="never_seen") == 1
    assert value(found, "node_clock_offset_seconds", **of) == -1.5
    assert value(found, "node_duty", **of, duty="drained") == 1
    assert value(found, "node_duty", **of, duty="serving") == 0
    assert value(found, "alarms", kind="clock_off") == 1
    assert value(found, "alarms", kind="chain_gap") == 0
    assert math.isclose(
        value(found, "node_health_timestamp_seconds", **of), timezone.now().timestamp(), abs_tol=60
    )


def test_an_empty_fleet_is_told_too(monitor: OverTls) -> None:
    assert value(parse(scrape(monitor)), "build_info", version="0.1.0") == 1


def test_what_a_silent_node_said_last_is_not_told_as_now(monitor: OverTls, node: Node) -> None:
    tell(node)
    Node.objects.update(health_at=timezone.now() - timedelta(minutes=6), last_error="unavailable")
    found = parse(scrape(monitor))
    assert value(found, "node_up", node="node-a") == 0
    assert not any(name == "appliance_node_memory_total_bytes" for name, _ in found)
    assert value(found, "node_health_timestamp_seconds", node="node-a") > 0


def test_names_follow_the_conventions(monitor: OverTls, node: Node) -> None:
    tell(node)
    for family in text_string_to_metric_families(scrape(monitor)):
        assert re.fullmatch(r"appliance_[a-z0-9_]+", family.name)
        assert not family.name.endswith("_total") or family.type == "counter"
        for sample in family.samples:
            assert set(sample.labels) <= {"node", "disk", "gpu", "status", "state", "duty", "kind", "version"}
        for word in ("megabytes", "gib", "milliseconds", "percent", "permille", "utilisation"):
            assert word not in family.name
    # positive control: units are there, at the end
    names = re.findall(r"^# TYPE (\S+)", scrape(monitor), re.MULTILINE)
    assert all(any(name.endswith(unit) for name in names) for unit in UNITS)


def test_no_client_and_no_device_is_in_it(monitor: OverTls, node: Node, acme: Client) -> None:
    key = new_public_key()
    add_device(NewDevice(client="acme", name="laptop", public_key=key))
    tell(node)
    assert Node.objects.get().health["cells"][0]["client"] == "acme"  # positive control: the report names it
    text = scrape(monitor)
    for secret in ("acme", "laptop", key, "4242"):
        assert secret not in text


def test_the_number_of_series_is_bounded_by_the_fleet_and_the_queries_by_nothing(monitor: OverTls) -> None:
    counts, series = [], []
    for number in (77, 78, 79, 80):
        tell(add_node(NewNode.parse(node_request(f"node-{number}", number))))
        with CaptureQueriesContext(connection) as queries:
            found = parse(scrape(monitor))
        counts.append(len(queries))
        series.append(len(found))
    assert len(set(counts)) == 1
    grown = {after - before for before, after in pairwise(series)}
    assert len(grown) == 1
    assert grown.pop() < 60


@pytest.mark.parametrize("role", Role)
def test_every_role_may_read_it_and_a_monitor_nothing_else(role: Role, node: Node) -> None:
    client = client_of(role)
    assert client.get("/metrics").status_code == 200
    assert (client.get("/api/v1/nodes").status_code == 200) is (role is not Role.MONITOR)
    assert client.post("/metrics").status_code in {403, 405}


def test_strangers_read_nothing(node: Node) -> None:
    assert OverTls().get("/metrics").status_code == 401
    assert OverTls().get("/metrics", HTTP_AUTHORIZATION="Bearer sac_guess").status_code == 401
    assert {"fleet.view_healthsample"} == RIGHTS[Role.MONITOR]


@given(st.text(max_size=30), st.text(max_size=30), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_and_any_number_comes_back_as_it_was(label: str, text: str, number: float) -> None:
    family = Family("appliance_test", text or "x")
    family.add(number, label=label)
    family.add(None, label="left out")
    (read,) = text_string_to_metric_families(render([family]))
    (sample,) = read.samples
    assert sample.labels == {"label": label}
    assert sample.value == number


def test_a_family_without_values_is_left_out_and_a_wrong_name_refused() -> None:
    assert render([Family("appliance_nothing", "Nothing.")]) == ""
    wrong = Family("appliance nothing", "Nothing.")
    wrong.add(1)
    with pytest.raises(ValueError, match="name"):
        render([wrong])


def test_every_metric_is_documented_and_no_other(monitor: OverTls, node: Node) -> None:
    tell(node)
    Node.objects.update(heartbeat_at=timezone.now(), certificate_expires_at=timezone.now())
    BundleRecord.objects.create(node=node, epoch=1, generation=1, accepted_at=timezone.now())
    page = (Path(__file__).parents[3] / "docs/operators-nodes.md").read_text("utf-8")
    told = set(re.findall(r"^# TYPE (\S+)", scrape(monitor), re.MULTILINE))
    assert told == set(re.findall(r"`(appliance_[a-z0-9_]+)`", page))

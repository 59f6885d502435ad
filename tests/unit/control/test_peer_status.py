"""Who is connected: told coarsely, and forgotten."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from control_cast import new_public_key
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from appliance.core.health import Peers
from control.clients.enrolment import add_device
from control.clients.models import Client, Device
from control.clients.requests import NewDevice
from control.clients.services import revoke_device
from control.clients.status import device_statuses
from control.fleet.models import Node, PeerReport
from control.fleet.peers import FORGOTTEN_AFTER, forget_peers, record_peers

pytestmark = pytest.mark.django_db


def add(name: str) -> Device:
    add_device(NewDevice(client="acme", name=name, public_key=new_public_key()))
    return Device.objects.get(name=name)


def tell(
    node: Node, now: datetime, connected: tuple[Device, ...], stale: tuple[Device, ...], left_s: int = 90
) -> None:
    fresh = [{"left_s": left_s, "public_keys": [device.public_key for device in connected]}]
    record_peers(node, Peers.parse({"connected": fresh, "stale": [d.public_key for d in stale]}), now)


def shown(api: APIClient) -> dict[str, str | None]:
    answer = api.get("/api/v1/devices")
    assert answer.status_code == 200
    return {row["name"]: row["status"] for row in answer.json()["results"]}


def test_a_device_has_the_status_that_its_nodes_kernel_says(api: APIClient, node: Node, acme: Client) -> None:
    here, away, new = add("here"), add("away"), add("new")
    assert set(shown(api).values()) == {None}, "nobody has said anything yet"
    tell(node, timezone.now(), (here,), (away,))
    assert shown(api) == {"here": "connected", "away": "stale", "new": "never_seen"}
    assert api.get(f"/api/v1/devices/{here.pk}").json()["status"] == "connected"
    tell(node, timezone.now(), (new,), (here,))
    assert shown(api) == {"here": "stale", "away": "never_seen", "new": "connected"}, "replaced, not added to"


def test_a_device_that_is_cut_off_has_no_status(api: APIClient, node: Node, acme: Client) -> None:
    here = add("here")
    tell(node, timezone.now(), (here,), ())
    revoke_device(here)
    assert shown(api) == {"here": None}


@pytest.mark.parametrize(
    ("passed_s", "status"), [(0, "connected"), (89, "connected"), (92, "stale"), (170, "stale"), (182, None)]
)
def test_nobody_is_connected_longer_than_the_node_could_say(
    api: APIClient, node: Node, acme: Client, passed_s: int, status: str | None
) -> None:
    here = add("here")
    tell(node, timezone.now() - timedelta(seconds=passed_s), (here,), ())
    assert shown(api) == {"here": status}


def test_what_was_said_three_minutes_ago_is_in_no_row(node: Node, acme: Client) -> None:
    here = add("here")
    now = timezone.now()
    tell(node, now, (here,), ())

    def everywhere() -> str:
        return json.dumps([*Node.objects.values(), *PeerReport.objects.values()], default=str)

    assert forget_peers(now + FORGOTTEN_AFTER) == 0
    assert here.public_key in everywhere()  # positive control
    assert forget_peers(now + FORGOTTEN_AFTER + timedelta(seconds=1)) == 1
    assert here.public_key not in everywhere()
    assert not PeerReport.objects.exists()


def test_what_a_node_says_of_peers_is_shown_to_nobody_as_it_came(
    api: APIClient, node: Node, acme: Client
) -> None:
    here = add("here")
    tell(node, timezone.now(), (here,), ())
    for path in ("nodes", "nodes/node-a", "health"):
        assert here.public_key not in api.get(f"/api/v1/{path}").content.decode()
    assert "peers" not in api.get("/api/v1/nodes/node-a").json()


def test_a_page_of_devices_costs_one_query_more_for_their_statuses(
    api: APIClient, node: Node, acme: Client
) -> None:
    counts = []
    for number in (1, 20):
        for index in range(number):
            add(f"d{number}-{index}")
        tell(node, timezone.now(), tuple(Device.objects.all()), ())
        with CaptureQueriesContext(connection) as queries:
            assert "connected" in shown(api).values()
        counts.append(len(queries))
    assert counts[0] == counts[1]
    with CaptureQueriesContext(connection) as queries:
        device_statuses(list(Device.objects.select_related("client")))
    assert len(queries) == 2


def test_ten_thousand_peers_are_read_in_a_fraction_of_a_page(node: Node) -> None:
    import time

    from control.fleet.peers import statuses

    keys = [new_public_key() for _ in range(100)]
    connected = [{"left_s": 30, "public_keys": (keys * 100)[:10_000]}]
    PeerReport.objects.create(node=node, at=timezone.now(), peers={"connected": connected, "stale": []})
    started = time.perf_counter()
    assert len(statuses([node.pk], timezone.now())[node.pk]) == 100
    assert time.perf_counter() - started < 1

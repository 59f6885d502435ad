"""Drain, maintenance, plans and the history of bundles, against a simulated node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from control_cast import new_public_key, node_request, store_pin
from django.conf import settings
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient
from simulated_node import SimulatedNode

from appliance.core.bundle import Accepted
from appliance.core.errors import RefusedError
from appliance.core.signing import public_text
from control.audit.models import Alarm
from control.clients import services as clients
from control.clients.enrolment import add_device
from control.clients.models import Client, Device
from control.clients.requests import NewClient, NewDevice
from control.fleet.models import BundleRecord, Duty, Node, NodePlan
from control.fleet.requests import NewNode
from control.fleet.services import add_node, ask_plan, find_node, find_plan, set_duty
from control.reconciler import generations
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.outline import MAX_LINES, describe_changes
from control.reconciler.worker import NodeWorker
from provisioning.node import NodeClient

pytestmark = pytest.mark.django_db(transaction=True)


class World:
    """A node with a pinned model, and the one worker that keeps it."""

    def __init__(self, keys: ReconcilerKeys) -> None:
        self.row = add_node(NewNode.parse(node_request()))
        store_pin(b"GGUF weights of no model")
        self.keys = keys
        self.node = SimulatedNode("node-a", public_text(keys.bundle))
        self.restart()

    def restart(self) -> None:
        paths = settings.PATHS
        self.worker = NodeWorker(
            "node-a",
            NodeClient(self.node),
            self.keys,
            keyring=paths.keyring,
            log=paths.log,
            interval_s=60.0,
        )

    def pass_once(self) -> None:
        assert self.worker.pass_once() == ""

    def device(self, name: str, client: str = "acme") -> str:
        key = new_public_key()
        add_device(NewDevice(client=client, name=name, public_key=key))
        return key

    def set(self, duty: Duty) -> None:
        set_duty(find_node("node-a"), duty)
        self.pass_once()

    @property
    def drained(self) -> bool:
        assert self.node.bundle is not None
        return self.node.bundle.drain

    @property
    def changes(self) -> list[str]:
        record = BundleRecord.objects.last()
        assert record is not None
        return list(record.changes)


@pytest.fixture
def world(keys: ReconcilerKeys, transactional_db: None) -> World:
    world = World(keys)
    world.pass_once()
    clients.create_client(NewClient(name="acme"))
    return world


def test_a_drained_node_is_told_so_and_serves_again(world: World) -> None:
    world.pass_once()
    assert not world.drained
    world.set(Duty.DRAINED)
    assert world.drained
    key = world.device("laptop")
    world.pass_once()
    assert key in world.node.peers, "a drained node still gets its bundles"
    world.set(Duty.SERVING)
    assert not world.drained


def test_in_maintenance_nothing_but_revocations_is_sent(world: World) -> None:
    laptop = world.device("laptop")
    world.set(Duty.MAINTENANCE)
    assert world.drained
    generation = world.node.accepted and world.node.accepted.generation
    phone = world.device("phone")
    for _ in range(8):
        world.pass_once()
    assert world.node.accepted is not None
    assert world.node.accepted.generation == generation
    assert phone not in world.node.peers
    assert not Alarm.objects.exists(), "a node that is held back has not drifted"
    clients.revoke_device(Device.objects.get(public_key=laptop))
    assert world.worker.revoke_now() == ""
    assert laptop not in world.node.peers
    world.set(Duty.SERVING)
    assert phone in world.node.peers
    assert not world.drained


def test_a_reconciler_that_restarts_learns_first_whom_it_may_have_to_cut_off(world: World) -> None:
    laptop = world.device("laptop")
    world.set(Duty.MAINTENANCE)
    world.restart()
    clients.revoke_device(Device.objects.get(public_key=laptop))
    world.pass_once()
    assert laptop not in world.node.peers


def test_health_and_receipts_are_pulled_in_maintenance(world: World) -> None:
    world.set(Duty.MAINTENANCE)
    world.restart()
    world.node.issue_receipt("a" * 64)
    world.node.seen.clear()
    world.pass_once()
    assert {"health", "peers", "receipts", "heartbeat"} <= set(world.node.ops())


def test_a_plan_is_what_the_node_says_before_anything_is_applied(world: World) -> None:
    world.set(Duty.MAINTENANCE)
    key = world.device("laptop")
    ask_plan(world.row, "olivia")
    assert find_plan(world.row).answered_at is None
    world.node.seen.clear()
    world.pass_once()
    plan = find_plan(world.row)
    assert (plan.actions, plan.total, plan.error, plan.asked_by) == ([f"add peer {key}"], 1, "", "olivia")
    assert "apply" not in world.node.ops()
    assert key not in world.node.peers
    world.set(Duty.SERVING)
    assert world.node.accepted is not None
    assert plan.generation == world.node.accepted.generation - 1, "undrained since"
    assert key in world.node.peers  # positive control: it was a plan of something


def test_a_plan_that_is_asked_for_while_bundles_are_sent_comes_first(world: World) -> None:
    key = world.device("laptop")
    ask_plan(world.row, "olivia")
    world.pass_once()
    assert find_plan(world.row).actions == [f"add peer {key}"]
    ops = world.node.ops()
    assert ops.index("plan") < len(ops) - 1 - ops[::-1].index("apply")
    ask_plan(world.row, "olivia")
    world.pass_once()
    assert (find_plan(world.row).actions, find_plan(world.row).total) == ([], 0)


def test_model_files_that_the_node_lacks_are_planned_first(world: World) -> None:
    world.set(Duty.MAINTENANCE)
    manifest = store_pin(b"GGUF of a larger one", name="larger").parsed_manifest()
    ask_plan(world.row, "olivia")
    world.pass_once()
    digest = manifest.files[0].sha256
    assert find_plan(world.row).actions == [f"send model file {digest}"]
    assert digest not in world.node.models, "nothing is sent in maintenance"
    world.set(Duty.SERVING)
    assert digest in world.node.models


def test_nobody_is_planned_for_who_did_not_ask(world: World) -> None:
    ask_plan(world.row, "olivia")
    for _ in range(3):
        world.pass_once()
    assert world.node.ops().count("plan") == 1
    assert NodePlan.objects.count() == 1


def test_a_node_that_refuses_to_plan_is_an_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_fields: str) -> dict[str, Any]:
        raise RefusedError("no", field="clients")

    monkeypatch.setattr(world.node, "op_plan", refuse)
    ask_plan(world.row, "olivia")
    world.pass_once()
    plan = find_plan(world.row)
    assert (plan.error, plan.actions) == ("refused", [])
    assert plan.answered_at is not None


def test_a_long_plan_is_kept_to_be_shown_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.node, "op_plan", lambda **_: {"actions": ["x"] * 2000})
    ask_plan(world.row, "olivia")
    world.pass_once()
    plan = find_plan(world.row)
    assert (len(plan.actions), plan.total) == (500, 2000)


def test_each_bundle_says_what_it_changed(world: World) -> None:
    world.pass_once()
    assert world.changes == ["client acme: added, 0 devices"]
    world.device("laptop")
    world.device("phone")
    world.pass_once()
    assert world.changes == ["client acme: 2 devices, before 0"]
    world.set(Duty.DRAINED)
    assert world.changes == ["drained"]
    clients.create_client(NewClient(name="bolt"))
    clients.suspend_client(Client.objects.get(name="acme"))
    world.pass_once()
    assert world.changes == ["client acme: removed", "client bolt: added, 0 devices"]
    world.set(Duty.SERVING)
    assert world.changes == ["serving again"]
    assert BundleRecord.objects.exclude(outline={}).count() == 1, "only the newest one's outline is kept"


def test_history_is_bounded_and_keeps_what_a_node_may_show(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "KEPT", 5)
    names = [world.device(f"d{number}") and f"d{number}" for number in range(3)]
    assert names
    for number in range(20):
        world.device(f"e{number}")
        world.pass_once()
    assert BundleRecord.objects.count() <= 6
    # An old disk: the node shows a generation that is forgotten here. It is behind, which is no alarm.
    current = world.node.accepted
    assert current is not None
    world.node.accepted = Accepted(epoch=1, generation=2, digest="0" * 64)
    world.pass_once()
    assert world.node.accepted == current or world.node.accepted.generation >= current.generation
    assert not Alarm.objects.exists()
    # What nobody here ever made still is one.
    world.node.accepted = Accepted(epoch=1, generation=current.generation + 5, digest="0" * 64)
    assert world.worker.pass_once() == "refused"
    assert set(Alarm.objects.values_list("kind", flat=True)) == {"node_ahead"}


def test_what_a_node_has_not_accepted_yet_is_not_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pass_once()
    monkeypatch.setattr(generations, "KEPT", 2)
    held = world.node.accepted
    world.node.fails_at_apply = RefusedError("no")
    for number in range(5):
        world.device(f"d{number}")
        world.worker.pass_once()
    assert world.node.accepted == held
    world.node.fails_at_apply = None
    world.pass_once()
    assert not Alarm.objects.exists()


@given(st.integers(0, 200), st.integers(0, 200))
def test_what_changed_is_bounded_and_never_lost_without_a_word(old: int, new: int) -> None:
    def outline(count: int) -> dict[str, Any]:
        held = {f"c{number}": {"devices": 1, "digest": "x"} for number in range(count)}
        return {"seats": 1, "drain": False, "tunnel": "", "certificate": "", "pins": {}, "clients": held}

    lines = describe_changes(outline(old), outline(new))
    assert len(lines) <= MAX_LINES
    told = len(lines)
    if lines and lines[-1].endswith(" more"):
        told += int(lines[-1].split()[1]) - 1
    assert told == abs(old - new)


def test_duty_plan_and_history_by_the_api(
    api: APIClient, world: World, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    url = "/api/v1/nodes/node-a"
    for verb, duty in (("drain", "drained"), ("maintenance", "maintenance"), ("undrain", "serving")):
        assert api.post(f"{url}/{verb}").json()["duty"] == duty
        assert api.get(url).json()["duty"] == duty
    assert api.get(f"{url}/plan").json()["code"] == "not_found"
    asked = api.post(f"{url}/plan")
    assert (asked.status_code, asked.json()["answered_at"]) == (202, None)
    world.pass_once()
    assert api.get(f"{url}/plan").json()["asked_by"] == "olivia"
    with django_assert_max_num_queries(8):
        history = api.get(f"{url}/bundles").json()["results"]
    assert history[0]["changes"] == ["client acme: added, 0 devices"]
    assert set(history[0]) == {"epoch", "generation", "digest", "changes", "created_at", "accepted_at"}
    with django_assert_max_num_queries(8):
        samples = api.get(f"{url}/samples?hours=1").json()["results"]
    assert samples[0]["cpu_permille"] == 250
    for hours in ("0", "721", "x", "1&hours=2"):
        assert api.get(f"{url}/samples?hours={hours}").status_code == 400


def test_duty_plan_and_history_by_the_command_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from appliance.cli import main

    def run(*arguments: str) -> dict[str, Any]:
        assert main(["control", "node", *arguments, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))

    assert run("drain", "node-a")["duty"] == "drained"
    assert run("maintenance", "node-a")["duty"] == "maintenance"
    assert run("list")["nodes"][0]["duty"] == "maintenance"
    assert run("undrain", "node-a")["duty"] == "serving"

    def answer() -> None:
        world.pass_once()
        connections.close_all()

    answering = threading.Timer(0.5, answer)
    answering.start()
    plan = run("plan", "node-a")
    answering.join()
    assert (plan["total"], plan["error"]) == (0, "")
    assert run("history", "node-a")["bundles"][-1]["changes"] == ["client acme: added, 0 devices"]
    assert run("health", "node-a")["samples"][0]["seats_total"] == 2
    assert Node.objects.get().duty == "serving"

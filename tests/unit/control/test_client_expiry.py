"""Ends of clients and keys, other limits, and another key for a device: what operators say and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from control_cast import new_public_key
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from appliance.cli import main
from appliance.core.bundle import Limits
from appliance.core.client_configuration import ClientConfiguration
from appliance.core.errors import RefusedError
from control.clients import services
from control.clients.enrolment import add_device
from control.clients.expiry import LONGEST, WARN_AHEAD, earliest, parse_end, warn
from control.clients.models import Client, Device, DeviceState
from control.clients.requests import NewClient, NewDevice, Rotation
from control.clients.rotation import rotate_device
from control.fleet.models import Node
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.render import render_content
from control.reconciler.revocations import observe_cut_off
from control.reconciler.rows import PresharedKeys, observe_rows

BASE = "/api/v1"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def add(name: str = "laptop", expires_at: datetime | None = None) -> Device:
    add_device(NewDevice(client="acme", name=name, public_key=new_public_key(), expires_at=expires_at))
    return Device.objects.get(name=name)


def ahead(**time: int) -> datetime:
    return timezone.now() + timedelta(**time)


def end_now(row: Client | Device) -> None:
    """Let its time come."""
    type(row).objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


@pytest.fixture
def served(node: Node, keys: ReconcilerKeys) -> Callable[[], dict[str, list[str]]]:
    """What the node's next bundle would say: client to public keys."""

    def render() -> dict[str, list[str]]:
        content = render_content(observe_rows(node, PresharedKeys(keys.seal)))
        return {client.name: [device.public_key for device in client.devices] for client in content.clients}

    return render


# --- Ends ------------------------------------------------------------------------------------------------------


@given(st.timedeltas(min_value=timedelta(days=-5000), max_value=timedelta(days=5000)))
def test_an_end_is_ahead_and_no_more_than_ten_years(distance: timedelta) -> None:
    end = NOW + distance
    if timedelta(seconds=1) <= distance <= LONGEST:
        parsed = parse_end(end, NOW)
        assert parsed is not None
        assert NOW < parsed <= end < parsed + timedelta(seconds=1)
    elif distance < timedelta(seconds=1) or distance >= LONGEST + timedelta(seconds=1):
        with pytest.raises(RefusedError) as refused:
            parse_end(end, NOW)
        assert refused.value.field == "expires_at"
        assert refused.value.hint


@given(st.timedeltas(min_value=timedelta(days=-30), max_value=timedelta(days=30)))
def test_a_warning_comes_two_weeks_ahead_and_never_promises_more_than_is_left(left: timedelta) -> None:
    said = warn(NOW + left, NOW)
    if left > WARN_AHEAD:
        assert said is None
    elif left <= timedelta(0):
        assert said == "expired"
    else:
        assert said is not None
        words = said.removeprefix("expires in ").split()
        if words[0].isdigit():
            told = int(words[0]) * timedelta(**{words[1].removesuffix("s") + "s": 1})
            assert told <= left < told + timedelta(days=1)


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(days=6, hours=3), "expires in 6 days"),
        (timedelta(days=1), "expires in 1 day"),
        (timedelta(hours=5), "expires in 5 hours"),
        (timedelta(minutes=59), "expires within the hour"),
        (timedelta(0), "expired"),
    ],
)
def test_warnings_are_sentences(left: timedelta, text: str) -> None:
    assert warn(NOW + left, NOW) == text


def test_what_ends_first_counts() -> None:
    assert earliest(None, NOW, NOW + timedelta(1)) == NOW
    assert earliest(None, None) is None


def test_the_bundle_says_when_and_leaves_out_what_has_ended(
    acme: Client, node: Node, keys: ReconcilerKeys, served: Callable[[], dict[str, list[str]]]
) -> None:
    laptop, phone = add("laptop", ahead(days=1)), add("phone")
    services.expire_client(acme, ahead(days=2))
    (client,) = render_content(observe_rows(node, PresharedKeys(keys.seal))).clients
    acme.refresh_from_db()
    laptop.refresh_from_db()
    assert acme.expires_at is not None
    assert laptop.expires_at is not None
    assert client.expires_at == int(acme.expires_at.timestamp())
    assert [device.expires_at for device in client.devices] == [int(laptop.expires_at.timestamp()), None]

    end_now(laptop)
    assert served() == {"acme": [phone.public_key]}
    assert observe_cut_off(node).public_keys == {laptop.public_key}
    end_now(acme)
    assert served() == {}
    assert observe_cut_off(node).clients == {"acme"}
    assert observe_cut_off(node).public_keys == {laptop.public_key, phone.public_key}

    # A later end lets them in again.
    services.expire_client(acme, None)
    services.expire_device(laptop, ahead(days=1))
    assert served() == {"acme": [laptop.public_key, phone.public_key]}
    assert not observe_cut_off(node).public_keys


@pytest.mark.parametrize("expires_at", [NOW - timedelta(days=400), NOW + timedelta(days=36_500)])
def test_a_bad_end_is_refused_everywhere_and_changes_nothing(acme: Client, expires_at: datetime) -> None:
    laptop = add()
    verbs: list[Callable[[], object]] = [
        lambda: services.create_client(NewClient(name="bolt", expires_at=expires_at)),
        lambda: services.expire_client(acme, expires_at),
        lambda: services.expire_device(laptop, expires_at),
        lambda: add("phone", expires_at),
        lambda: rotate_device(laptop, Rotation(public_key=new_public_key(), expires_at=expires_at)),
    ]
    for verb in verbs:
        with pytest.raises(RefusedError) as refused:
            verb()
        assert refused.value.field == "expires_at"
    laptop.refresh_from_db()
    assert (laptop.state, laptop.expires_at) == (DeviceState.ACTIVE, None)
    assert (Client.objects.count(), Device.objects.count()) == (1, 1)


def test_what_was_revoked_gets_no_end_and_no_limits(acme: Client) -> None:
    laptop = add()
    services.revoke_client(acme)
    laptop.refresh_from_db()
    for verb in (
        lambda: services.expire_client(acme, None),
        lambda: services.limit_client(acme, Limits()),
        lambda: services.expire_device(laptop, None),
        lambda: rotate_device(laptop, Rotation(public_key=new_public_key())),
    ):
        with pytest.raises(RefusedError) as refused:
            verb()
        assert refused.value.field == "state"


# --- Another key -----------------------------------------------------------------------------------------------


def test_both_keys_of_a_device_work_until_the_old_one_ends(
    acme: Client, served: Callable[[], dict[str, list[str]]]
) -> None:
    old = add()
    key = new_public_key()
    configuration = rotate_device(old, Rotation(public_key=key, overlap_h=24, expires_at=ahead(days=90)))
    assert (configuration.device, configuration.public_key) == ("laptop", key)
    old.refresh_from_db()
    new = services.find_device(acme, "laptop")
    assert (old.state, new.state, new.public_key) == (DeviceState.REPLACED, DeviceState.ACTIVE, key)
    assert old.expires_at is not None
    assert timedelta(hours=23) < old.expires_at - timezone.now() <= timedelta(hours=24)
    # Nothing of the old key serves the new one.
    assert new.token_sha256 != old.token_sha256
    assert new.index != old.index
    assert served() == {"acme": [old.public_key, key]}
    end_now(old)
    assert served() == {"acme": [key]}


def test_an_overlap_prolongs_no_key_and_none_ends_it_at_once(
    acme: Client, node: Node, served: Callable[[], dict[str, list[str]]]
) -> None:
    old = add(expires_at=ahead(hours=2))
    end = old.expires_at
    rotate_device(old, Rotation(public_key=new_public_key(), overlap_h=720))
    old.refresh_from_db()
    assert old.expires_at == end
    second = services.find_device(acme, "laptop")
    rotate_device(second, Rotation(public_key=new_public_key(), overlap_h=0))
    assert second.public_key not in served()["acme"]
    assert observe_cut_off(node).public_keys == {second.public_key}


def test_a_rotation_that_is_refused_leaves_the_key_as_it_was(acme: Client) -> None:
    old = add()
    with pytest.raises(RefusedError) as refused:
        rotate_device(old, Rotation(public_key=old.public_key))
    assert refused.value.field == "public_key"
    old.refresh_from_db()
    assert (old.state, old.expires_at) == (DeviceState.ACTIVE, None)


def test_a_key_that_was_replaced_is_not_replaced_again_and_keeps_its_end(acme: Client) -> None:
    old = add()
    rotate_device(old, Rotation(public_key=new_public_key()))
    old.refresh_from_db()
    for verb in (
        lambda: rotate_device(old, Rotation(public_key=new_public_key())),
        lambda: services.expire_device(old, None),
    ):
        with pytest.raises(RefusedError) as refused:
            verb()
        assert refused.value.field == "state"
    assert Device.objects.count() == 2


def test_revoking_a_device_takes_every_key_it_has_and_an_old_key_goes_alone(
    acme: Client, served: Callable[[], dict[str, list[str]]]
) -> None:
    first = add()
    rotate_device(first, Rotation(public_key=new_public_key()))
    second = services.find_device(acme, "laptop")
    rotate_device(second, Rotation(public_key=new_public_key()))
    third = services.find_device(acme, "laptop")
    assert served() == {"acme": [first.public_key, second.public_key, third.public_key]}
    services.revoke_device(first)
    assert served() == {"acme": [second.public_key, third.public_key]}
    services.revoke_device(third)
    assert served() == {"acme": []}
    assert set(Device.objects.values_list("state", flat=True)) == {DeviceState.REVOKED}


def test_an_expired_device_s_name_is_still_its_own(acme: Client) -> None:
    end_now(add())
    with pytest.raises(RefusedError) as refused:
        add()
    assert "device rotate" in str(refused.value.hint)
    rotate_device(Device.objects.get(), Rotation(public_key=new_public_key()))
    assert services.find_device(acme, "laptop").expires_at is None


# --- The API ---------------------------------------------------------------------------------------------------


def test_the_api_says_sets_and_rotates(api: APIClient, acme: Client) -> None:
    soon = ahead(days=6, hours=1).isoformat()
    body = {"client": "acme", "name": "laptop", "public_key": new_public_key(), "expires_at": soon}
    assert api.post(f"{BASE}/devices", body, format="json").status_code == 201
    (laptop,) = api.get(f"{BASE}/devices").json()["results"]
    assert laptop["warning"] == "expires in 6 days"
    assert datetime.fromisoformat(laptop["expires_at"]) == datetime.fromisoformat(soon).replace(microsecond=0)
    address = f"{BASE}/devices/{laptop['id']}"
    assert api.post(f"{address}/expire", {"expires_at": None}, format="json").json()["warning"] is None

    ended = api.post(f"{BASE}/clients/acme/expire", {"expires_at": ahead(hours=3).isoformat()}, format="json")
    assert ended.json()["warning"] == "expires in 2 hours"
    assert api.get(address).json()["warning"] == "expires in 2 hours"  # its client's end is its own

    key = new_public_key()
    made = api.post(f"{address}/rotate", {"public_key": key, "overlap_h": 1}, format="json")
    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    assert ClientConfiguration.parse(made.json()).public_key == key
    assert api.get(address).json()["state"] == "replaced"

    limits = {"tokens_per_minute": 1000, "requests_per_day": 50}
    answer = api.post(f"{BASE}/clients/acme/limits", limits, format="json").json()["limits"]
    assert answer == Limits(**limits).model_dump(mode="json")
    assert "tokens_per_day" not in answer


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("clients/acme/limits", {"tokens_per_minute": 0}, "tokens_per_minute"),
        ("clients/acme/limits", {"tokens_per_minut": 1}, "tokens_per_minut"),
        ("clients/acme/expire", {}, "expires_at"),
        ("clients/acme/expire", {"expires_at": "tomorrow"}, "expires_at"),
        ("clients/acme/expire", {"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ("clients/acme/expire", {"expires_at": 2000000000}, "expires_at"),
        ("clients/acme/expire", {"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ("clients/acme/expire", {"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ("clients/acme/expire", {"expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
        ("devices/{id}/rotate", {"public_key": "x"}, "public_key"),
        ("devices/{id}/rotate", {"public_key": "k", "overlap_h": 721}, "public_key"),
        ("devices/{id}/expire", {"expires_at": True}, "expires_at"),
    ],
)
def test_what_makes_no_sense_is_a_problem_that_names_the_field(
    api: APIClient, acme: Client, path: str, body: dict[str, Any], field: str
) -> None:
    laptop = add()
    answer = api.post(f"{BASE}/{path.format(id=laptop.pk)}", body, format="json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["field"] == field


@pytest.mark.parametrize("where", ["clients", "devices"])
def test_a_list_costs_as_many_queries_for_many_as_for_one(api: APIClient, acme: Client, where: str) -> None:
    counts = []
    for number in range(2):
        for extra in range(1 if number == 0 else 8):
            Client.objects.create(name=f"client-{number}-{extra}", home=acme.home, expires_at=ahead(days=1))
            add(f"device-{number}-{extra}", ahead(days=1))
        api.get(f"{BASE}/{where}")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert api.get(f"{BASE}/{where}").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6


# --- The command line ------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    def run(*arguments: str) -> tuple[int, Any]:
        code = main(["control", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_from_the_command_line(run: Callable[..., tuple[int, Any]], acme: Client, tmp_path: Path) -> None:
    assert (
        run("device", "add", "acme", "laptop", "--public-key", new_public_key(), "--expires", "90d")[0] == 0
    )
    assert run("client", "expire", "acme", "10d")[0] == 0
    assert run("client", "list")[1]["clients"][0]["warning"] == "expires in 9 days"
    (laptop,) = run("device", "list")[1]["devices"]
    assert laptop["warning"] == "expires in 9 days"
    assert laptop["expires_at"]
    assert "client__expires_at" not in laptop
    assert run("client", "expire", "acme", "never")[1]["expires_at"] is None
    assert run("device", "list")[1]["devices"][0]["warning"] is None

    out = tmp_path / "new.json"
    new = ("device", "rotate", "acme", "laptop", "--public-key", new_public_key(), "--overlap", "48")
    assert run(*new, "--out", str(out))[0] == 0
    assert ClientConfiguration.parse(json.loads(out.read_text())).device == "laptop"
    assert run(*new, "--out", str(out))[0] == 2  # never written over, and no key made for nothing
    assert [device["state"] for device in run("device", "list")[1]["devices"]] == ["replaced", "active"]
    assert run("device", "expire", "acme", "laptop", "2000-01-01T00:00:00Z")[0] == 1
    assert run("device", "expire", "acme", "laptop", "12h")[0] == 0

    limits = tmp_path / "limits.json"
    limits.write_text('{"tokens_per_day": 1000}')
    assert run("client", "limit", "acme", str(limits))[1]["limits"]["tokens_per_day"] == 1000
    limits.write_text('{"tokens_per_day": 0}')
    code, refused = run("client", "limit", "acme", str(limits))
    assert code == 1
    assert refused["error"]["message"].startswith("tokens_per_day: ")

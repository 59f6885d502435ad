"""A request that is repeated is done once; who changes what somebody else changed meanwhile is told so."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from control_cast import OverTls, new_public_key, node_request
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone
from rest_framework.test import APIClient

from control.api import idempotency
from control.api.models import KeptAnswer
from control.api.openapi import describe
from control.clients.enrolment import add_device
from control.clients.models import Client, Device, Invitation
from control.clients.requests import NewDevice
from control.fleet.models import Node
from control.operators.services import NewToken, create_token
from control.pins.models import ModelPin

BASE = "/api/v1"
KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


def post(api: APIClient, path: str, body: dict[str, Any], key: str = KEY) -> Any:
    return api.post(f"{BASE}/{path}", body, format="json", headers={"Idempotency-Key": key})


def test_a_repeated_request_is_answered_as_before_and_done_once(
    api: APIClient, node: Node, pin: ModelPin
) -> None:
    first = post(api, "clients", {"name": "bolt"})
    again = post(api, "clients", {"name": "bolt"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert Client.objects.count() == 1
    # The control: without the key it is another request.
    assert api.post(f"{BASE}/clients", {"name": "bolt"}, format="json").status_code == 400


def test_a_key_is_the_same_bare_and_as_a_structured_string_and_the_body_s_order_is_nothing(
    api: APIClient, node: Node, pin: ModelPin
) -> None:
    post(api, "clients", {"name": "bolt", "node": "node-a"})
    again = post(api, "clients", {"node": "node-a", "name": "bolt"}, key=f'"{KEY}"')
    assert again["Idempotency-Replayed"] == "true"


def test_another_request_under_the_key_is_refused(api: APIClient, node: Node, pin: ModelPin) -> None:
    post(api, "clients", {"name": "bolt"})
    for path, body in (("clients", {"name": "acme"}), ("nodes", node_request("node-b", 78))):
        answer = post(api, path, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "key_reused")
    assert [Client.objects.get().name, Node.objects.get().name] == ["bolt", "node-a"]


def test_a_device_s_secrets_are_kept_nowhere(api: APIClient, acme: Client) -> None:
    body = {"client": "acme", "name": "laptop", "public_key": new_public_key()}
    first = post(api, "devices", body)
    assert first.status_code == 201
    kept = KeptAnswer.objects.get()
    assert kept.body == ""
    assert first.json()["token"]
    again = post(api, "devices", body)
    assert (again.status_code, again.json()["code"]) == (409, "already_done")
    assert "revoke" in again.json()["hint"]
    assert Device.objects.count() == 1


def test_a_repeated_rotation_makes_one_key(api: APIClient, acme: Client) -> None:
    add_device(NewDevice(client="acme", name="laptop", public_key=new_public_key()))
    old = Device.objects.get()
    body = {"public_key": new_public_key()}
    first = post(api, f"devices/{old.pk}/rotate", body)
    again = post(api, f"devices/{old.pk}/rotate", body)
    assert (first.status_code, again.status_code, again.json()["code"]) == (201, 409, "already_done")
    assert KeptAnswer.objects.get().body == ""
    assert Device.objects.count() == 2
    # What the hint says to do who lost the answer.
    assert "rotate the new key" in again.json()["hint"]
    new = Device.objects.get(public_key=body["public_key"])
    another = post(api, f"devices/{new.pk}/rotate", {"public_key": new_public_key()}, key="another")
    assert another.status_code == 201


def test_an_invitation_s_ticket_is_kept_nowhere(api: APIClient, acme: Client) -> None:
    body = {"client": "acme", "device": "laptop"}
    first, again = post(api, "invitations", body), post(api, "invitations", body)
    assert (first.status_code, again.status_code, again.json()["code"]) == (201, 409, "already_done")
    assert KeptAnswer.objects.get().body == ""
    assert "cancel" in again.json()["hint"]
    assert Invitation.objects.count() == 1


def test_a_refused_request_is_not_kept(api: APIClient, node: Node, pin: ModelPin) -> None:
    assert post(api, "clients", {"name": "bolt", "models": ["none"]}).status_code == 400
    assert not KeptAnswer.objects.exists()
    assert post(api, "clients", {"name": "bolt"}).status_code == 201


def test_keys_of_one_caller_are_nothing_to_another(
    api: APIClient, operator: User, node: Node, pin: ModelPin
) -> None:
    post(api, "clients", {"name": "bolt"})
    other = OverTls()
    text = create_token(NewToken(operator="olivia", name="other"))
    other.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert post(other, "clients", {"name": "bolt"}).json()["code"] == "refused"
    stranger = OverTls()
    assert post(stranger, "clients", {"name": "bolt"}).status_code == 401


def test_after_a_day_a_key_is_forgotten(api: APIClient, node: Node, pin: ModelPin) -> None:
    post(api, "clients", {"name": "bolt"})
    KeptAnswer.objects.update(claimed_at=timezone.now() - timedelta(hours=25))
    assert post(api, "clients", {"name": "acme"}).status_code == 201
    assert KeptAnswer.objects.count() == 1


def test_keys_are_bounded(api: APIClient, node: Node, pin: ModelPin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST", 2)
    for number in range(2):
        assert post(api, "clients", {"name": f"c{number}"}, key=f"k{number}").status_code == 201
    answer = post(api, "clients", {"name": "c2"}, key="k2")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_keys")


@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 65, '"open', "caf\u00e9", 'a"b', "a\\b"])
def test_what_is_no_key_is_refused(api: APIClient, node: Node, pin: ModelPin, key: str) -> None:
    answer = post(api, "clients", {"name": "bolt"}, key=key.encode("utf-8").decode("latin-1"))
    assert answer.status_code == 400
    assert not Client.objects.exists()


def test_what_a_stop_cut_off_is_taken_over_after_a_minute(api: APIClient, node: Node, pin: ModelPin) -> None:
    """Between the claim and the answer nothing was committed, so whoever takes over begins from nothing."""
    post(api, "clients", {"name": "bolt"})
    Client.objects.all().delete()
    KeptAnswer.objects.update(status=None, body="")
    assert post(api, "clients", {"name": "bolt"}).json()["code"] == "busy"
    KeptAnswer.objects.update(claimed_at=timezone.now() - timedelta(seconds=61))
    assert post(api, "clients", {"name": "bolt"}).status_code == 201
    assert Client.objects.count() == 1


def test_one_that_came_back_from_the_dead_undoes_what_it_did(
    api: APIClient, node: Node, pin: ModelPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from control.clients import api as module

    real = module.create_client

    def slow(*args: Any) -> Any:
        client = real(*args)
        KeptAnswer.objects.update(claim="another")  # took over meanwhile
        return client

    monkeypatch.setattr(module, "create_client", slow)
    answer = post(api, "clients", {"name": "bolt"})
    assert (answer.status_code, answer.json()["code"]) == (409, "busy")
    assert not Client.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_requests_that_come_together_one_is_done(operator: User, node: Node, pin: ModelPin) -> None:
    text = create_token(NewToken(operator="olivia", name="many"))
    answers: list[Any] = []

    def ask() -> None:
        try:
            client = OverTls(raise_request_exception=False)
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
            answers.append(post(client, "clients", {"name": "bolt"}))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    codes = sorted(answer.status_code for answer in answers)
    assert len(codes) == 8
    assert set(codes) <= {201, 409}
    assert (
        sum(1 for answer in answers if answer.status_code == 201 and "Idempotency-Replayed" not in answer)
        == 1
    )
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"busy"}
    assert Client.objects.count() == 1


# -- entity tags


def settings(api: APIClient) -> Any:
    return api.get(f"{BASE}/nodes/node-a/settings")


def change(api: APIClient, tag: str | None, **body: Any) -> Any:
    headers = {} if tag is None else {"If-Match": tag}
    return api.patch(f"{BASE}/nodes/node-a/settings", body, format="json", headers=headers)


def test_of_two_who_saw_the_same_the_second_is_told(api: APIClient, node: Node) -> None:
    seen = settings(api)["ETag"]
    first = change(api, seen, seats=3)
    assert (first.status_code, first.json()["seats"]) == (200, 3)
    second = change(api, seen, seats=4)
    assert (second.status_code, second.json()["code"]) == (412, "changed")
    node.refresh_from_db()
    assert node.seats == 3
    assert change(api, first["ETag"], seats=4).status_code == 200
    assert settings(api).json() == {"endpoint": node.endpoint, "seats": 4}


def test_without_a_tag_nothing_is_changed(api: APIClient, node: Node) -> None:
    answer = change(api, None, seats=3)
    assert (answer.status_code, answer.json()["code"]) == (428, "tag_required")
    assert change(api, "*", seats=3).status_code == 200


def test_what_the_node_itself_tells_changes_no_tag(api: APIClient, node: Node) -> None:
    seen = settings(api)["ETag"]
    Node.objects.update(health={"uptime_s": 5}, last_seen_at=timezone.now())
    assert settings(api)["ETag"] == seen


@pytest.mark.parametrize("tag", ["", "x", 'W/"' + "0" * 32 + '"', '"' + "0" * 31 + '"'])
def test_a_tag_that_was_never_given_matches_nothing(api: APIClient, node: Node, tag: str) -> None:
    assert change(api, tag, seats=3).status_code == 412


@pytest.mark.parametrize("body", [{"seats": 0}, {"name": "x"}, {"endpoint": "x"}, {"seats": "3"}])
def test_bad_settings_are_refused_and_nothing_is_changed(
    api: APIClient, node: Node, body: dict[str, Any]
) -> None:
    assert change(api, "*", **body).status_code == 400
    assert settings(api).json() == {"endpoint": node.endpoint, "seats": node.seats}


def test_a_client_s_tag_changes_with_what_is_shown_of_it(api: APIClient, acme: Client) -> None:
    seen = api.get(f"{BASE}/clients/acme")["ETag"]
    assert api.get(f"{BASE}/clients/acme")["ETag"] == seen
    api.post(f"{BASE}/clients/acme/suspend")
    assert api.get(f"{BASE}/clients/acme")["ETag"] != seen


def test_two_at_once_change_it_once(transactional_db: None, operator: User, node: Node) -> None:
    text = create_token(NewToken(operator="olivia", name="many"))
    api = OverTls()
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    seen = settings(api)["ETag"]
    codes: list[int] = []

    def ask(seats: int) -> None:
        try:
            client = OverTls()
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
            codes.append(change(client, seen, seats=seats).status_code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask, args=(seats,)) for seats in range(10, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(codes) == [200, *[412] * 5]


def test_the_description_says_which_headers_are_taken() -> None:
    taken = {
        (path, method): [one["name"] for one in operation["parameters"] if one["in"] == "header"]
        for path, methods in describe()["paths"].items()
        for method, operation in methods.items()
    }
    for path in ("/aliases", "/clients", "/devices", "/devices/{pk}/rotate", "/invitations", "/nodes"):
        assert taken[path, "post"] == ["Idempotency-Key"]
    assert taken["/nodes/{name}/settings", "patch"] == ["If-Match"]
    assert taken["/clients", "get"] == []

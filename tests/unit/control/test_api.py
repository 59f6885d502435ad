"""The API: who gets in, what it does, and that bad input is a problem document and never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from control_cast import new_public_key, node_request
from django.contrib.auth.models import User
from django.urls import URLPattern
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from appliance.core.client_configuration import ClientConfiguration
from control.api.urls import router
from control.clients.models import Client, Device
from control.fleet.models import Node
from control.operators.models import ApiToken
from control.operators.services import NewToken, create_token
from control.pins.models import ModelPin

BASE = "/api/v1"


def addresses() -> Iterator[tuple[str, str]]:
    """Every address of the API with every method it takes, with example parts."""
    parts = {"name": "acme", "pk": "1", "pin_id": "0" * 64}
    for route in router.urls:
        assert isinstance(route, URLPattern)
        path = str(route.pattern).lstrip("^").rstrip("$").replace("\\Z", "")
        for name, value in parts.items():
            start = path.find(f"(?P<{name}>")
            if start >= 0:
                path = path[:start] + value + path[path.index(")", start) + 1 :]
        for method in route.callback.actions:  # type: ignore[attr-defined]
            yield method, f"{BASE}/{path}"
    yield "get", f"{BASE}/health"


ADDRESSES = sorted(set(addresses()))


def test_the_matrix_covers_the_whole_api() -> None:
    assert len(ADDRESSES) >= 20
    assert ("post", f"{BASE}/devices") in ADDRESSES
    assert ("post", f"{BASE}/clients/acme/revoke") in ADDRESSES


def expired(token: str) -> str:
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    return f"Bearer {token}"


def of_inactive(token: str) -> str:
    User.objects.update(is_active=False)
    return f"Bearer {token}"


@pytest.mark.parametrize(("method", "address"), ADDRESSES)
@pytest.mark.parametrize(
    "credential",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer sac_wrong",
        "Basic b2xpdmlhOg==",
        "Bearer \udc80\udcff",
        expired,
        of_inactive,
    ],
    ids=["none", "empty", "scheme", "blank", "wrong", "basic", "bytes", "expired", "inactive"],
)
def test_nobody_gets_in_without_a_living_token(
    stranger: APIClient, acme: Client, token: str, method: str, address: str, credential: Any
) -> None:
    if callable(credential):
        credential = credential(token)
    if credential is not None:
        stranger.credentials(HTTP_AUTHORIZATION=credential)
    answer = getattr(stranger, method)(address, {}, format="json")
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"] == "Bearer"
    assert set(answer.json()) == {"type", "title", "status", "code"}
    acme.refresh_from_db()
    assert acme.state == "active"


def test_a_user_who_is_no_operator_is_refused(stranger: APIClient, db: None) -> None:
    User.objects.create(username="mallory")
    text = create_token(NewToken(operator="mallory", name="t"))
    stranger.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert stranger.get(f"{BASE}/clients").status_code == 403


def test_a_session_needs_a_csrf_token_to_change_anything(
    stranger: APIClient, operator: User, acme: Client
) -> None:
    stranger.force_login(operator)
    assert stranger.get(f"{BASE}/clients").status_code == 200
    assert stranger.post(f"{BASE}/clients/acme/revoke").status_code == 403
    acme.refresh_from_db()
    assert acme.state == "active"


def test_plain_http_is_sent_to_https(api: APIClient) -> None:
    api.secure = False  # type: ignore[attr-defined]
    assert api.get(f"{BASE}/clients").status_code == 301


def test_a_client_and_its_device_from_nothing_to_revoked(api: APIClient, node: Node, pin: ModelPin) -> None:
    assert api.get(f"{BASE}/pins/{pin.pin_id}").json()["manifest"] == pin.manifest

    made = api.post(f"{BASE}/clients", {"name": "acme"}, format="json")
    assert made.status_code == 201
    assert made.json()["models"] == ["tiny"]
    assert "pseudonym_key" not in made.json()

    key = new_public_key()
    wanted = {"client": "acme", "name": "laptop", "public_key": key}
    made = api.post(f"{BASE}/devices", wanted, format="json")
    assert made.status_code == 201
    configuration = ClientConfiguration.parse(made.json())
    assert configuration.client == "acme"
    assert made["Cache-Control"] == "no-store"

    listed = api.get(f"{BASE}/devices?client=acme").json()
    assert listed["count"] == 1
    device = listed["results"][0]
    assert device["public_key"] == key
    # Shown once: neither secret comes back, under any name.
    assert configuration.token not in json.dumps(listed)
    assert not {"token_sha256", "sealed_preshared_key"} & set(device)

    assert api.post(f"{BASE}/clients/acme/suspend").json()["state"] == "suspended"
    assert api.post(f"{BASE}/clients/acme/resume").json()["state"] == "active"
    assert api.post(f"{BASE}/devices/{device['id']}/revoke").json()["state"] == "revoked"
    assert api.post(f"{BASE}/clients/acme/revoke").json()["state"] == "revoked"
    assert api.post(f"{BASE}/clients/acme/resume").status_code == 400


def test_nodes_are_added_listed_and_shown(api: APIClient) -> None:
    assert api.post(f"{BASE}/nodes", node_request(), format="json").status_code == 201
    shown = api.get(f"{BASE}/nodes/node-a").json()
    assert shown["endpoint"] == "203.0.113.77:51820"
    assert shown["listen_port"] == 51820
    assert api.get(f"{BASE}/health").json()["nodes"][0]["name"] == "node-a"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"host_key": "ssh-rsa AAAA"}, "host_key"),
        ({"host_key": "ssh-ed25519 AAAA"}, "host_key"),
        ({"host_key": ""}, "host_key"),
        ({"endpoint": "203.0.113.1"}, "endpoint"),
        ({"endpoint": "203.0.113.1:0"}, "endpoint"),
        ({"endpoint": "2001:db8::1:51820"}, "endpoint"),
        ({"endpoint": "vpn.example:51820\nPostUp=x"}, "endpoint"),
        ({"address": "192.0.2.999"}, "address"),
        ({"user": "root;id"}, "user"),
        ({"address4": "10.78.0.1"}, "address4"),
        ({"address4": "10.77.0.0"}, "address4"),
        ({"address6": "fd00:77::"}, "address6"),
        ({"network4": "10.77.0.1/16"}, "network4"),
        ({"network6": "fd00:77::/120"}, "network6"),
        ({"seats": 0}, "seats"),
        ({"seats": "2"}, "seats"),
        ({"unknown": 1}, "unknown"),
        ({"name": "node-b"}, "network4"),
        ({"name": "node-a"}, "name"),
    ],
)
def test_a_bad_node_is_refused_with_the_field_named(
    api: APIClient, node: Node, changes: dict[str, Any], field: str
) -> None:
    answer = api.post(f"{BASE}/nodes", node_request(**{"name": "node-c", **changes}), format="json")
    assert answer.status_code == 400
    assert answer.json()["field"].startswith(field)
    assert Node.objects.count() == 1


BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"1",
    b"1.5",
    b"NaN",
    b'{"name":"a","name":"b"}',
    b'{"name":"\\ud800"}',
    b'{"\\ud800":1}',
    b'{"name":"a\\u0000"}',
    b'{"name":' + b"9" * 5000 + b"}",
    b'{"name":1e400}',
    b"\xff\xfe{}",
    b'{"a":' * 50_000,
    b"[" * 200_000,
    b'{"name":"' + b"x" * 1_100_000 + b'"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("where", ["clients", "devices", "nodes"])
def test_a_malformed_body_is_a_problem_and_never_a_500(api: APIClient, body: bytes, where: str) -> None:
    answer = api.generic("POST", f"{BASE}/{where}", body, content_type="application/json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert b"xxx" not in answer.content  # nothing is echoed


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_only_json_is_taken(api: APIClient, kind: str) -> None:
    answer = api.generic("POST", f"{BASE}/clients", b"name=acme", content_type=kind)
    assert answer.status_code == 415


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["name", "models", "limits", "node", "client", "public_key"])


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(
    body=st.dictionaries(FIELDS, JSON, max_size=4),
    where=st.sampled_from(["clients", "devices", "nodes"]),
)
def test_no_json_makes_a_500(api: APIClient, node: Node, body: dict[str, Any], where: str) -> None:
    answer = api.post(f"{BASE}/{where}", json.dumps(body), content_type="application/json")
    assert answer.status_code in (400, 201)


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=x",
        "page=999999999999999999999",
        "client=../x",
        "node=a&node=b",
        "what=1",
        "verified=maybe",
    ],
)
def test_a_bad_query_is_a_problem(api: APIClient, query: str) -> None:
    answer = api.get(f"{BASE}/receipts?{query}")
    assert answer.status_code in (400, 404)
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "address",
    [
        "clients/unknown",
        "devices/999999999999999999",
        "pins/" + "0" * 64,
        "nodes/none",
        "receipts/7",
        "what",
        "",
    ],
)
def test_what_does_not_exist_is_404(api: APIClient, address: str) -> None:
    answer = api.get(f"{BASE}/{address}")
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


def test_lists_come_in_pages(api: APIClient, acme: Client) -> None:
    for number in range(5):
        Client.objects.create(name=f"client-{number}", home=acme.home, allowed_models=["tiny"])
    first = api.get(f"{BASE}/clients?page_size=4").json()
    assert (first["count"], len(first["results"])) == (6, 4)
    assert len(api.get(f"{BASE}/clients?page_size=4&page=2").json()["results"]) == 2


def test_a_device_is_not_added_while_the_node_is_unknown(api: APIClient, acme: Client, node: Node) -> None:
    Node.objects.update(wireguard_public_key="")
    wanted = {"client": "acme", "name": "a", "public_key": new_public_key()}
    answer = api.post(f"{BASE}/devices", wanted, format="json")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert not Device.objects.exists()

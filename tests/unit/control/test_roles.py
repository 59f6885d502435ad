"""Each role gets what its rights say, by the API and in the console, and nothing beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from control_cast import OverTls, new_public_key
from django.contrib.auth.models import Group, Permission, User
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from rest_framework.test import APIClient

from appliance.core.errors import RefusedError
from control.clients.models import Client, ClientState, Device
from control.operators.models import ApiToken
from control.operators.roles import RIGHTS, Role
from control.operators.services import (
    NewOperator,
    NewToken,
    create_operator,
    create_token,
    disable_operator,
    give_role,
    revoke_token,
)

pytestmark = pytest.mark.django_db

V, O, A, X = Role.VIEWER, Role.OPERATOR, Role.AUDITOR, Role.ADMINISTRATOR  # noqa: E741
ALL, SEES_RECEIPTS, AUDITS, CHANGES = {V, O, A, X}, {O, A, X}, {A, X}, {O, X}

# Who gets through to what, written down beside the code that decides it. `{}` is the id of a row that is there.
API: dict[tuple[str, str], set[Role]] = {
    ("GET", "clients"): ALL,
    ("POST", "clients"): CHANGES,
    ("GET", "clients/acme"): ALL,
    ("POST", "clients/acme/limits"): CHANGES,
    ("POST", "clients/acme/expire"): CHANGES,
    ("POST", "clients/acme/suspend"): CHANGES,
    ("POST", "clients/acme/resume"): CHANGES,
    ("POST", "clients/acme/revoke"): CHANGES,
    ("GET", "devices"): ALL,
    ("POST", "devices"): CHANGES,
    ("GET", "devices/1"): ALL,
    ("POST", "devices/1/rotate"): CHANGES,
    ("POST", "devices/1/expire"): CHANGES,
    ("POST", "devices/1/revoke"): CHANGES,
    ("GET", "invitations"): ALL,
    ("POST", "invitations"): CHANGES,
    ("GET", "invitations/1"): ALL,
    ("POST", "invitations/1/approve"): CHANGES,
    ("POST", "invitations/1/cancel"): CHANGES,
    ("GET", "nodes"): ALL,
    ("POST", "nodes"): CHANGES,
    ("GET", "nodes/node-a"): ALL,
    ("POST", "nodes/node-a/drain"): CHANGES,
    ("POST", "nodes/node-a/maintenance"): CHANGES,
    ("POST", "nodes/node-a/undrain"): CHANGES,
    ("POST", "nodes/node-a/plan"): CHANGES,
    ("GET", "nodes/node-a/plan"): ALL,
    ("GET", "nodes/node-a/bundles"): ALL,
    ("GET", "nodes/node-a/samples"): ALL,
    ("GET", "nodes/node-a/settings"): ALL,
    ("PATCH", "nodes/node-a/settings"): CHANGES,
    ("GET", "pins"): ALL,
    ("GET", f"pins/{'0' * 64}"): ALL,
    ("POST", f"pins/{'0' * 64}/activate"): CHANGES,
    ("POST", f"pins/{'0' * 64}/rollback"): CHANGES,
    ("POST", f"pins/{'0' * 64}/retire"): CHANGES,
    ("GET", "aliases"): ALL,
    ("POST", "aliases"): CHANGES,
    ("POST", "aliases/1/remove"): CHANGES,
    ("GET", "receipts"): SEES_RECEIPTS,
    ("GET", "receipts/export"): SEES_RECEIPTS,
    ("GET", "receipts/1"): SEES_RECEIPTS,
    ("GET", "receipts/1/signed"): SEES_RECEIPTS,
    ("GET", "receipts/1/proof"): SEES_RECEIPTS,
    ("GET", "receipts/1/archive"): SEES_RECEIPTS,
    ("GET", "log/checkpoint"): SEES_RECEIPTS,
    ("GET", "log/continuation"): SEES_RECEIPTS,
    ("GET", "alarms"): ALL,
    ("GET", "events"): AUDITS,
    ("GET", "events/export"): AUDITS,
    ("GET", "events/evidence"): AUDITS,
    ("GET", "events/1"): AUDITS,
    ("GET", "events/1/entry"): AUDITS,
    ("GET", "events/1/proof"): AUDITS,
    ("GET", "health"): ALL,
    ("GET", "openapi.json"): ALL,
}

# The console's kinds of rows: who sees them, and who adds some.
CONSOLE: dict[str, tuple[set[Role], set[Role]]] = {
    "clients_client": (ALL, CHANGES),
    "clients_device": (ALL, CHANGES),
    "clients_invitation": (ALL, set()),
    "fleet_node": (ALL, set()),
    "fleet_bundlerecord": (ALL, set()),
    "pins_modelpin": (ALL, set()),
    "audit_alarm": (ALL, set()),
    "audit_receiptrecord": (SEES_RECEIPTS, set()),
    "transparency_checkpointrecord": (SEES_RECEIPTS, set()),
    "journal_auditevent": (AUDITS, set()),
    "operators_operator": (AUDITS, set()),
    "operators_apitoken": (AUDITS, set()),
}


def user_of(role: Role) -> User:
    return User.objects.filter(username=role).first() or create_operator(
        NewOperator(name=role, role=role), None
    )


def api_of(role: Role, /, **token: Any) -> APIClient:
    user_of(role)
    text = create_token(NewToken(operator=role, name=f"t{ApiToken.objects.count()}", **token))
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def browser_of(role: Role) -> OverTls:
    browser = OverTls()
    browser.force_login(user_of(role))
    return browser


def call(client: APIClient, method: str, path: str) -> int:
    return int(client.generic(method, f"/api/v1/{path}", "{}", "application/json", secure=True).status_code)


@pytest.mark.parametrize("role", Role)
def test_the_api_lets_each_role_through_to_what_is_its_own(role: Role, acme: Client) -> None:
    client = api_of(role)
    for (method, path), allowed in API.items():
        status = call(client, method, path)
        assert (status == 403) is (role not in allowed), (method, path, status)
        assert status < 500 or status == 503, (method, path, status)
        assert status not in {401, 405}, (method, path, status)


def test_the_table_has_every_address_and_method_of_the_api() -> None:
    named = {(method, routed(path)) for method, path in API}
    there = {(method, route) for route, view in api_routes() for method in methods_of(view)}
    assert there == named


def routed(path: str) -> str:
    """Return an address with its ids left out."""
    resolver = next(p for p in get_resolver().url_patterns if str(p.pattern) == "api/v1/")
    assert isinstance(resolver, URLResolver)
    return str(resolver.resolve(f"api/v1/{path}").route).removeprefix("api/v1/")


def api_routes() -> Iterator[tuple[str, Any]]:
    resolver = next(p for p in get_resolver().url_patterns if str(p.pattern) == "api/v1/")
    assert isinstance(resolver, URLResolver)
    for pattern in resolver.url_patterns:
        assert isinstance(pattern, URLPattern)
        if hasattr(pattern.callback, "cls"):
            yield str(pattern.pattern), pattern.callback


def methods_of(view: Any) -> set[str]:
    actions = getattr(view, "actions", None)
    names = actions if actions is not None else [n for n in ("get", "post") if hasattr(view.cls, n)]
    return {name.upper() for name in names} - {"HEAD"}


def test_who_is_no_operator_gets_nothing(acme: Client) -> None:
    """Neither without a token, nor as a user of Django's whom somebody gave every right that Django knows."""
    stranger = User.objects.create_user("stranger", is_staff=True)
    stranger.user_permissions.set(Permission.objects.all())
    group = Group.objects.create(name="administrator")
    group.permissions.set(Permission.objects.all())
    stranger.groups.add(group)
    signed_in = OverTls()
    signed_in.force_login(stranger)
    for method, path in API:
        assert call(APIClient(), method, path) == 401
        assert call(signed_in, method, path) == 403
    browser = OverTls()
    browser.force_login(stranger)
    for kind in CONSOLE:
        assert browser.get(reverse(f"admin:{kind}_changelist")).status_code == 403


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", CONSOLE)
def test_the_console_shows_each_role_what_is_its_own(role: Role, kind: str, acme: Client) -> None:
    browser, (sees, adds) = browser_of(role), CONSOLE[kind]
    listed = browser.get(reverse(f"admin:{kind}_changelist")).status_code
    assert (listed == 200) is (role in sees), listed
    assert listed in {200, 403}
    added = browser.get(reverse(f"admin:{kind}_add")).status_code
    assert (added == 200) is (role in adds), added
    assert added in {200, 403}


def test_the_table_has_every_kind_of_row_of_the_console(operator: User) -> None:
    from django.contrib import admin

    registered = {f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry}
    assert registered == set(CONSOLE)


@pytest.mark.parametrize("role", Role)
def test_only_who_may_change_clients_revokes_them_in_the_console(role: Role, acme: Client) -> None:
    chosen = {"action": "revoke", "_selected_action": [acme.pk]}
    page = reverse("admin:clients_client_changelist")
    browser_of(role).post(page, chosen, format="multipart")
    acme.refresh_from_db()
    assert (acme.state == ClientState.REVOKED) is (role in CHANGES)
    offered = "Revoke the chosen clients" in browser_of(role).get(page).content.decode()
    assert offered is (role in CHANGES), "nobody is offered what is then refused"


@pytest.mark.parametrize("kind", ["clients_client", "clients_device"])
def test_a_form_that_is_sent_without_being_shown_adds_nothing(kind: str, node: object, acme: Client) -> None:
    before = Client.objects.count(), Device.objects.count()
    form = {"client": "acme", "name": "bolt", "public_key": new_public_key(), "home": "node-a"}
    for role in set(Role) - CHANGES:
        assert (
            browser_of(role).post(reverse(f"admin:{kind}_add"), form, format="multipart").status_code == 403
        )
    assert (Client.objects.count(), Device.objects.count()) == before


def test_a_token_does_at_most_what_its_role_and_its_operator_may(acme: Client) -> None:
    less, more = api_of(O, role=V), api_of(V, role=X)
    for client in (less, more):
        assert call(client, "GET", "clients") == 200
        assert call(client, "GET", "receipts") == 403
        assert call(client, "POST", "clients/acme/revoke") == 403
    acme.refresh_from_db()
    assert acme.state == ClientState.ACTIVE


@pytest.mark.parametrize(
    ("networks", "address", "admitted"),
    [
        ((), "203.0.113.9", True),
        ((), "", True),
        (("0.0.0.0/0",), "", False),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::7", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "2001:db8::7", False),
    ],
)
def test_a_token_is_good_from_its_networks_alone(
    networks: tuple[str, ...], address: str, admitted: bool, node: object
) -> None:
    client = api_of(V, networks=networks)
    status = client.get("/api/v1/nodes", secure=True, REMOTE_ADDR=address).status_code
    assert status == (200 if admitted else 401)
    forged = client.get("/api/v1/nodes", secure=True, REMOTE_ADDR=address, HTTP_X_FORWARDED_FOR="10.1.2.3")
    assert forged.status_code == status


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "everywhere", "10.0.0.0/255.0.0.0"])
def test_a_network_has_one_spelling(network: str) -> None:
    with pytest.raises(RefusedError, match="networks"):
        NewToken.parse({"operator": "a", "name": "b", "networks": [network]})


def test_another_role_is_in_force_with_the_next_request(acme: Client) -> None:
    client, browser = api_of(O), browser_of(O)
    assert call(client, "GET", "receipts") == 200
    give_role(O, V)
    assert call(client, "GET", "receipts") == 403
    assert browser.get(reverse("admin:audit_receiptrecord_changelist")).status_code == 403
    give_role(O, X)
    assert browser.get(reverse("admin:operators_apitoken_changelist")).status_code == 200
    give_role(O, A)
    assert not User.objects.get(username=O).is_superuser, "no way back to what an administrator may"
    assert call(client, "POST", "clients/acme/revoke") == 403


def test_a_disabled_operator_is_out_at_once(acme: Client) -> None:
    client, browser = api_of(X), browser_of(X)
    assert call(client, "GET", "clients") == 200
    disable_operator(X)
    assert call(client, "GET", "clients") == 401
    assert browser.get("/admin/").status_code == 302
    with pytest.raises(RefusedError):
        create_token(NewToken(operator=X, name="again"))


def test_a_revoked_token_is_out_at_once(acme: Client) -> None:
    client = api_of(V)
    assert call(client, "GET", "clients") == 200
    revoke_token(V, "t0")
    assert call(client, "GET", "clients") == 401
    with pytest.raises(RefusedError):
        revoke_token(V, "t0")


def test_no_role_but_the_administrators_has_a_right_over_operators_or_deletes() -> None:
    for rights in RIGHTS.values():
        assert not any(right.startswith("auth.") or ".delete_" in right for right in rights)
        assert not any(right.startswith("operators.") and ".view_" not in right for right in rights)
    assert all(".view_" in right for right in RIGHTS[A] | RIGHTS[V])


def test_every_right_is_one_that_django_knows() -> None:
    known = {
        f"{p.content_type.app_label}.{p.codename}" for p in Permission.objects.select_related("content_type")
    }
    assert set().union(*RIGHTS.values()) <= known


def test_a_role_that_nobody_knows_has_no_right(acme: Client) -> None:
    client = api_of(V)
    User.objects.get(username=V).operator.__class__.objects.update(role="emperor")
    assert call(client, "GET", "clients") == 403
    of_token = api_of(X)
    ApiToken.objects.filter(operator__username=X).update(role="emperor")
    assert call(of_token, "GET", "clients") == 403

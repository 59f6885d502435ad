"""What operators do in the console: through the services, said before it is done, secrets shown once."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from console_cast import PageReader, World, browser_of, make_world
from control_cast import OverTls, new_public_key, node_request
from django.conf import settings
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.utils import timezone

from appliance.core.client_configuration import PRIVATE_KEY_PLACEHOLDER, ClientConfiguration
from control.audit.models import DELETED, ReceiptRecord
from control.audit.pace import count_between
from control.audit.verification import Outcome, Verification
from control.clients.models import Client, ClientState, Device, DeviceState
from control.console.charts import HEIGHT, draw_bars
from control.console.condition import observe_nodes
from control.console.errors import bad_request, server_error
from control.console.qr import draw_code
from control.console.theme import COOKIE
from control.fleet.models import Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node
from control.operators.models import ApiToken, Operator, OperatorSession
from control.operators.roles import Role, role_of
from control.operators.services import NewToken, create_token
from control.pins.models import ModelPin
from control.reconciler.keys import ReconcilerKeys

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def world(node: Node, pin: ModelPin, keys: ReconcilerKeys) -> World:
    return make_world(node, pin, keys)


@pytest.fixture
def browser(world: World) -> OverTls:
    return browser_of(Role.OPERATOR)


@pytest.fixture
def admin(world: World) -> OverTls:
    return browser_of(Role.ADMINISTRATOR)


def send(browser: OverTls, path: str, **form: object) -> str:
    answer = browser.generic("POST", path, urlencode(form, doseq=True), FORM)
    if answer.status_code == 302:
        answer = browser.get(answer["Location"])
    assert answer.status_code == 200
    text: str = answer.content.decode()
    return text


def test_a_client_is_created_and_its_page_asks_for_a_device(browser: OverTls) -> None:
    text = send(browser, "/clients/add/", name="corp", models=["tiny"])
    assert Client.objects.get(name="corp").allowed_models == ["tiny"]
    assert "corp was created" in text
    assert 'href="/clients/corp/devices/add/"' in text
    assert "the name is taken" in send(browser, "/clients/add/", name="corp")


def test_where_there_are_two_nodes_a_client_is_given_its_home(browser: OverTls) -> None:
    assert 'name="node"' not in browser.get("/clients/add/").content.decode()
    add_node(NewNode.parse(node_request("node-b", 78)))
    assert 'name="node"' in browser.get("/clients/add/").content.decode()
    send(browser, "/clients/add/", name="corp", node="node-b")
    assert Client.objects.get(name="corp").home.name == "node-b"


@pytest.mark.parametrize(
    ("verb", "start", "end", "said"),
    [
        ("suspend", ClientState.ACTIVE, ClientState.SUSPENDED, "2 devices are cut off"),
        ("resume", ClientState.SUSPENDED, ClientState.ACTIVE, "2 devices are let in again"),
        ("revoke", ClientState.ACTIVE, ClientState.REVOKED, "cannot be taken back"),
    ],
)
def test_a_change_is_said_before_it_is_done(
    browser: OverTls, world: World, verb: str, start: str, end: str, said: str
) -> None:
    Client.objects.filter(pk=world.client.pk).update(state=start)
    asked = browser.get(f"/clients/acme/{verb}/").content.decode()
    assert said in asked
    assert Client.objects.get(name="acme").state == start, "asking changes nothing"
    send(browser, f"/clients/acme/{verb}/")
    assert Client.objects.get(name="acme").state == end


def test_a_change_that_is_refused_is_said_and_changes_nothing(browser: OverTls, world: World) -> None:
    send(browser, "/clients/acme/revoke/")
    text = send(browser, "/clients/acme/resume/")
    assert "The client was revoked, which is for good." in text
    assert Client.objects.get(name="acme").state == ClientState.REVOKED


def test_a_device_s_configuration_is_shown_once_as_file_text_and_code(browser: OverTls) -> None:
    key = new_public_key()
    text = send(browser, "/clients/acme/devices/add/", name="desk", public_key=key)
    page = PageReader.read(text)
    (file,) = [each.attributes["href"] for each in page.all("a") if "download" in each.attributes]
    made = ClientConfiguration.parse(json.loads(base64.b64decode(file.partition("base64,")[2])))
    assert made.public_key == key
    assert made.token in page.all("textarea")[0].text
    assert page.all("mark")[0].text == PRIVATE_KEY_PLACEHOLDER
    assert page.all("pre")[0].text == made.wireguard_conf
    assert str(draw_code(made.wireguard_conf)) in text
    for path in ("/clients/acme/", "/devices/?q=desk"):
        later = browser.get(path).content.decode()
        assert key in later, "positive control: it is listed there"
        assert made.token not in later
        assert made.wireguard_conf.splitlines()[6] not in later


def test_a_key_that_was_used_before_is_refused_beside_its_field(browser: OverTls, world: World) -> None:
    text = send(browser, "/clients/acme/devices/add/", name="desk", public_key=world.device.public_key)
    page = PageReader.read(text)
    (field,) = [each for each in page.all("input") if each.attributes.get("name") == "public_key"]
    assert field.attributes["aria-invalid"] == "true"
    assert "id_public_key_error" in field.attributes["aria-describedby"].split()
    assert "the key was used before. make a new key on the client" in text


def test_a_form_for_one_client_adds_to_no_other(browser: OverTls) -> None:
    Client.objects.update(state=ClientState.ACTIVE)
    send(browser, "/clients/acme/devices/add/", name="desk", public_key=new_public_key(), client="bolt")
    assert Device.objects.get(name="desk").client.name == "acme"


def test_a_device_is_revoked_and_the_others_stay(browser: OverTls, world: World) -> None:
    asked = browser.get(f"/devices/{world.device.pk}/revoke/").content.decode()
    assert "Other devices of acme are not touched" in asked
    send(browser, f"/devices/{world.device.pk}/revoke/")
    states = dict(Device.objects.values_list("name", "state"))
    assert states == {"laptop": DeviceState.REVOKED, "phone": DeviceState.ACTIVE}


def test_an_operator_is_added_with_a_password_that_is_shown_once_and_lets_them_in(admin: OverTls) -> None:
    text = send(admin, "/operators/add/", name="carol", role="auditor", console="on")
    (field,) = [each for each in PageReader.read(text).all("input") if each.attributes.get("id") == "secret"]
    carol = User.objects.get(username="carol")
    assert role_of(carol) is Role.AUDITOR
    assert carol.check_password(field.attributes["value"])
    send(admin, "/operators/add/", name="robot", role="viewer")
    assert not User.objects.get(username="robot").has_usable_password()


def test_the_console_makes_no_administrator_and_touches_none(admin: OverTls) -> None:
    send(admin, "/operators/add/", name="carol", role="administrator")
    assert not User.objects.filter(username="carol").exists()
    bob = User.objects.get(username="bob")
    send(admin, f"/operators/{bob.pk}/role/", role="administrator")
    assert role_of(User.objects.get(pk=bob.pk)) is Role.VIEWER
    own = User.objects.get(username=Role.ADMINISTRATOR)
    for verb in ("role", "sign-out", "disable"):
        answer = admin.generic("POST", f"/operators/{own.pk}/{verb}/", "role=viewer", FORM)
        assert answer.status_code == 403
    assert role_of(User.objects.get(pk=own.pk)) is Role.ADMINISTRATOR


def test_roles_sessions_and_names_are_taken_away(admin: OverTls) -> None:
    bob = User.objects.get(username="bob")
    create_token(NewToken(operator="bob", name="ci"))
    send(admin, f"/operators/{bob.pk}/role/", role="auditor")
    assert Operator.objects.get(user=bob).role == Role.AUDITOR
    theirs = OverTls()
    theirs.force_login(bob)
    assert theirs.get("/").status_code == 200
    send(admin, f"/operators/{bob.pk}/sign-out/")
    assert theirs.get("/")["Location"] == "/login/?next=/"
    assert not OperatorSession.objects.filter(user=bob).exists()
    assert ApiToken.objects.filter(operator=bob).exists()
    send(admin, f"/operators/{bob.pk}/disable/")
    assert not User.objects.get(pk=bob.pk).is_active
    assert not ApiToken.objects.filter(operator=bob).exists()


def test_a_token_is_shown_once_and_revoked(admin: OverTls) -> None:
    text = send(
        admin,
        "/tokens/add/",
        operator="bob",
        name="ci",
        days=7,
        role="viewer",
        networks="10.0.0.0/8\n192.0.2.0/24",
    )
    token = ApiToken.objects.get(name="ci")
    assert token.networks == ["10.0.0.0/8", "192.0.2.0/24"]
    assert (found := re.search(r'value="(sac_[^"]+)"', text))
    listed = admin.get("/tokens/").content.decode()
    assert "ci" in listed
    assert found[1] not in listed
    send(admin, f"/tokens/{token.pk}/revoke/")
    assert not ApiToken.objects.filter(name="ci").exists()
    wrong = send(admin, "/tokens/add/", operator="bob", name="ci", days=7, networks="10.0.0.1/8")
    assert "has host bits set" in wrong


def test_nobody_is_offered_what_is_then_refused(world: World) -> None:
    offers = {"/clients/": "/clients/add/", "/clients/acme/": "revoke/", "/devices/": "/revoke/"}
    for role in (Role.VIEWER, Role.AUDITOR, Role.OPERATOR):
        for path, offered in offers.items():
            text = browser_of(role).get(path).content.decode()
            assert (offered in text) is (role is Role.OPERATOR), (role, path)
        navigation = browser_of(role).get("/").content.decode()
        assert ('href="/receipts/"' in navigation) is (role is not Role.VIEWER)
        assert ('href="/operators/"' in navigation) is (role is Role.AUDITOR)


# -- receipts


def test_a_receipt_is_verified_again_in_steps(world: World) -> None:
    record = ReceiptRecord.objects.get(pk=world.logged.pk)
    steps = Verification(record, settings.PATHS, ()).steps()
    assert [step.outcome for step in steps] == [Outcome.PASSED] * 5
    text = browser_of(Role.AUDITOR).get(f"/receipts/{record.pk}/").content.decode()
    assert text.count(">passed</span>") == 5
    assert "verified again just now" in text


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"digest": "0" * 64}, 0),
        ({"text": '{"end":"one_shot"}'}, 0),
        ({"signature": "A" * 86 + "=="}, 1),
        ({"key": "0" * 16}, 1),
        ({"place": 7000}, 2),
    ],
)
def test_a_step_that_fails_is_named_and_no_other_is_tried(
    world: World, change: dict[str, object], failed: int
) -> None:
    ReceiptRecord.objects.filter(pk=world.logged.pk).update(**change)
    steps = Verification(ReceiptRecord.objects.get(pk=world.logged.pk), settings.PATHS, ()).steps()
    outcomes = [step.outcome for step in steps]
    assert outcomes[:failed] == [Outcome.PASSED] * failed
    assert outcomes[failed] in {Outcome.FAILED, Outcome.WAITING}
    assert outcomes[failed + 1 :] == [Outcome.SKIPPED] * (4 - failed)
    text = browser_of(Role.AUDITOR).get(f"/receipts/{world.logged.pk}/").content.decode()
    assert "verified again just now" not in text


def test_a_receipt_of_another_place_in_the_log_does_not_verify(world: World) -> None:
    world.issue(2)
    world.log()
    place = ReceiptRecord.objects.get(pk=world.logged.pk).place
    other = ReceiptRecord.objects.exclude(place=None).exclude(pk=world.logged.pk).latest("pk")
    ReceiptRecord.objects.filter(pk=world.logged.pk).update(place=None)
    ReceiptRecord.objects.filter(pk=other.pk).update(place=place)
    steps = Verification(ReceiptRecord.objects.get(pk=other.pk), settings.PATHS, ()).steps()
    assert [step.outcome for step in steps] == [Outcome.PASSED] * 4 + [Outcome.FAILED]


def test_a_receipt_that_waits_is_not_called_wrong(world: World) -> None:
    steps = Verification(world.waiting, settings.PATHS, ()).steps()
    assert [step.outcome for step in steps] == [
        *[Outcome.PASSED] * 2,
        Outcome.WAITING,
        *[Outcome.SKIPPED] * 2,
    ]


def test_what_is_left_of_a_deleted_receipt_is_shown(world: World) -> None:
    ReceiptRecord.objects.filter(pk=world.logged.pk).update(text='{"end":"one_shot"}', signature=DELETED)
    text = browser_of(Role.AUDITOR).get(f"/receipts/{world.logged.pk}/").content.decode()
    assert "is not kept here any more" in text
    assert world.logged.digest in text


def test_the_list_is_exported_as_it_is_filtered(world: World) -> None:
    world.issue(2, Client.objects.get(name="bolt"))
    browser = browser_of(Role.AUDITOR)
    page = browser.get("/receipts/?q=bolt").content.decode()
    for form in ("csv", "jsonl"):
        assert f'href="/receipts/export.{form}?q=bolt"' in page
    lines = browser.get("/receipts/export.jsonl?q=bolt").getvalue().splitlines()
    assert len(lines) == 2


# -- the overview


def test_a_new_control_leads_to_the_first_session(db: None) -> None:
    text = browser_of(Role.ADMINISTRATOR).get("/").content.decode()
    assert text.count(">to do</span>") == 4
    assert PageReader.read(text).problems == []


def test_the_worst_comes_first_and_says_what_to_do(world: World) -> None:
    text = browser_of(Role.OPERATOR).get("/").content.decode()
    assert text.index("A receipt is missing") < text.index("node-a: behind")
    assert text.count("<strong>Next:</strong>") == 3
    assert "3 things to look at" in text


def test_all_is_well_when_it_is(world: World) -> None:
    from control.audit.models import Alarm
    from control.fleet.models import BundleRecord

    Alarm.objects.update(raised_at=timezone.now() - timedelta(days=8))
    BundleRecord.objects.update(accepted_at=timezone.now())
    text = browser_of(Role.OPERATOR).get("/").content.decode()
    assert "Nothing is late, nothing is wrong." in text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"last_seen_at": None}, "not met yet"),
        ({"last_seen_at": datetime(2026, 1, 1, tzinfo=UTC)}, "no contact"),
        ({"last_error": "bundle_refused"}, "pass failed"),
        ({"health": {"notary": {"up": False}}}, "no notary"),
        ({"health": {"disks": [{"name": "root", "total_bytes": 100, "free_bytes": 9}]}}, "disk fills"),
        ({"health": {"disks": "full", "notary": ["up"], "cells": 7}}, "in step"),
        ({"health": []}, "in step"),
    ],
)
def test_a_node_s_condition_has_a_word(world: World, change: dict[str, object], word: str) -> None:
    from control.fleet.models import BundleRecord

    BundleRecord.objects.update(accepted_at=timezone.now())
    Node.objects.update(**change)
    (view,) = observe_nodes(Node.objects.all(), timezone.now())
    assert view.condition.word == word
    assert bool(view.condition.do) is (word != "in step")
    for path in ("/", "/nodes/", "/nodes/node-a/"):
        assert word in browser_of(Role.VIEWER).get(path).content.decode()


def test_generations_are_wanted_accepted_and_applied(world: World) -> None:
    (view,) = observe_nodes(Node.objects.all(), timezone.now())
    assert (view.wanted.generation, view.accepted.generation, view.applied, view.behind) == (3, 2, "1.2", 1)  # type: ignore[union-attr]


def test_receipts_are_counted_between_times_as_they_came(world: World) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    world.issue(9)
    for number, record in enumerate(ReceiptRecord.objects.order_by("pk")):
        ReceiptRecord.objects.filter(pk=record.pk).update(admitted_at=start + timedelta(minutes=15 * number))
    hours = [start + timedelta(hours=hour) for hour in range(5)]
    assert count_between(hours) == [4, 4, 4, 0]


def test_a_chart_is_scaled_to_its_highest_and_the_least_still_shows() -> None:
    chart = draw_bars([("a", 0), ("b", 1), ("c", 1000)])
    assert [bar.height for bar in chart.bars] == [0, 2, HEIGHT]
    assert (chart.total, chart.most) == (1001, 1000)
    assert draw_bars([]).bars == ()
    assert all(bar.height == 0 for bar in draw_bars([("a", 0)]).bars)


# -- layout


def test_a_theme_is_remembered_until_it_is_forgotten(browser: OverTls) -> None:
    assert "data-theme" not in browser.get("/").content.decode()
    assert 'data-theme="dark"' in send(browser, "/theme/", theme="dark", back="/clients/")
    cookie = browser.cookies[COOKIE]
    assert cookie["secure"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert "data-theme" not in send(browser, "/theme/", theme="system", back="/")
    browser.cookies[COOKIE] = '"><script>'
    assert "data-theme" not in browser.get("/").content.decode()


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "javascript:x", "/\\evil.example", ""]
)
def test_a_theme_leads_back_to_this_console_alone(browser: OverTls, back: str) -> None:
    answer = browser.generic("POST", "/theme/", urlencode({"theme": "dark", "back": back}), FORM)
    assert answer["Location"] == "/"


def test_pages_for_failures_ask_nothing_and_say_what_to_do() -> None:
    request = RequestFactory().get("/", headers={"host": "evil.example"})
    for answer, status in ((bad_request(request), 400), (server_error(request), 500)):
        text = answer.content.decode()
        assert answer.status_code == status
        assert "<strong>Next:</strong>" in text
        assert "evil" not in text
        assert PageReader.read(text).problems == []


def test_a_view_that_fails_is_answered_with_the_page_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr("control.console.views.nodes.observe_nodes", fail)
    answer = browser_of(Role.VIEWER).get("/nodes/")
    assert answer.status_code == 500
    assert "Clients are not affected" in answer.content.decode()
    assert "secret words" not in answer.content.decode()


def test_the_api_s_page_holds_every_operation_and_schema(browser: OverTls) -> None:
    from control.api.openapi import describe

    text = browser.get("/reference/").content.decode()
    document = describe()
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in text
        for operation in methods.values():
            assert operation["summary"].split("`")[0] in text.replace("&#x27;", "'")
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in text

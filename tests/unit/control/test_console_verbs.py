"""What the console's pages of clients, models and nodes do, and that the dangerous ones ask for the second factor anew."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from console_cast import PageReader, World, browser_of, make_world
from control_cast import OverTls, new_public_key
from django.utils import timezone

from appliance.core.bundle import Limits
from control.clients.forms import LIMITS
from control.clients.models import Client, Device, DeviceState, Invitation, InvitationState
from control.console.charts import HEIGHT, draw_line
from control.fleet.models import Duty, Node, NodePlan
from control.operators.roles import Role
from control.operators.stepup import FRESH
from control.pins.models import ClientAlias, ModelPin, PinState
from control.reconciler.keys import ReconcilerKeys

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def world(node: Node, pin: ModelPin, keys: ReconcilerKeys) -> World:
    return make_world(node, pin, keys)


@pytest.fixture
def browser(world: World) -> OverTls:
    return browser_of(Role.OPERATOR)


def send(browser: OverTls, path: str, **form: Any) -> str:
    answer = browser.generic("POST", path, urlencode(form), FORM)
    assert answer.status_code == 302, answer.status_code
    return str(browser.get(answer["Location"]).content.decode())


def test_what_is_dangerous_asks_for_the_factor_anew_and_what_is_not_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dangerous = (
        "/clients/acme/revoke/",
        f"/devices/{world.device.pk}/revoke/",
        f"/models/{world.verified.pin_id}/retire/",
        f"/operators/{world.bob.pk}/role/",
        f"/operators/{world.bob.pk}/disable/",
        f"/tokens/{world.token.pk}/revoke/",
    )
    others = ("/clients/acme/suspend/", f"/models/{world.verified.pin_id}/activate/", "/clients/acme/limits/")
    browser, real = browser_of(Role.ADMINISTRATOR), time.time
    for path in (*dangerous, *others):
        assert browser.get(path).status_code == 200, path
    monkeypatch.setattr(time, "time", lambda: real() + FRESH.total_seconds() + 1)
    for path in dangerous:
        for method in ("GET", "POST"):
            answer = browser.generic(method, path, "role=auditor", FORM)
            assert answer["Location"] == f"/account/step-up/?next={path.replace('/', '%2F')}"
    for path in others:
        assert browser.get(path).status_code == 200, path
    assert Client.objects.get(name="acme").state == "active"
    assert Device.objects.get(pk=world.device.pk).state == DeviceState.ACTIVE
    assert ModelPin.objects.get(pk=world.verified.pk).state == PinState.VERIFIED


def test_the_form_of_limits_has_every_limit(browser: OverTls) -> None:
    assert set(LIMITS) == set(Limits.model_fields)
    page = PageReader.read(browser.get("/clients/acme/limits/").content.decode())
    shown = {
        each.attributes["name"]: each.attributes for each in page.all("input") if "id" in each.attributes
    }
    assert set(LIMITS) == set(shown) - {"back"}
    assert shown["sessions"]["value"] == "8"


def test_limits_are_changed_and_an_empty_one_is_none(browser: OverTls) -> None:
    form: dict[str, Any] = {
        name: value
        for name, value in Limits().model_dump().items()
        if value is not None and not isinstance(value, bool)
    }
    send(browser, "/clients/acme/limits/", **{**form, "sessions": 3, "tokens_per_day": 9000})
    limits = Client.objects.get(name="acme").parsed_limits()
    assert limits == Limits(sessions=3, tokens_per_day=9000)
    answer = browser.generic("POST", "/clients/acme/limits/", urlencode({**form, "sessions": 256}), FORM)
    assert "less than or equal to 255" in answer.content.decode()
    assert Client.objects.get(name="acme").parsed_limits() == limits


def test_an_end_is_set_warned_of_and_taken_away(browser: OverTls) -> None:
    soon = timezone.now() + timedelta(days=3, minutes=5)
    send(browser, "/clients/acme/end/", expires_at=f"{soon:%Y-%m-%dT%H:%M}")
    assert "expires in 3 days" in browser.get("/clients/acme/").content.decode()
    past = browser.generic("POST", "/clients/acme/end/", urlencode({"expires_at": "2020-01-01T00:00"}), FORM)
    assert "has passed" in past.content.decode()
    send(browser, "/clients/acme/end/", expires_at="")
    assert Client.objects.get(name="acme").expires_at is None


def test_an_invitation_is_shown_once(browser: OverTls) -> None:
    answer = browser.generic(
        "POST", "/clients/acme/invite/", urlencode({"device": "studio", "hours": 2, "approval": "on"}), FORM
    )
    text = answer.content.decode()
    ticket = PageReader.read(text).all("textarea")[0].text
    assert "appliance client enroll" in text
    assert 'class="qr"' in text
    made = Invitation.objects.get(device_name="studio")
    assert made.needs_approval
    later = browser.get("/clients/acme/").content.decode()
    assert "studio" in later, "positive control: it is listed"
    assert ticket not in later


def test_a_key_is_let_in_beside_its_fingerprint(browser: OverTls, world: World) -> None:
    path = f"/invitations/{world.invitation.pk}/approve/"
    assert world.invitation.fingerprint in browser.get(path).content.decode()
    assert world.invitation.fingerprint in browser.get("/clients/acme/").content.decode()
    send(browser, path)
    assert Invitation.objects.get(pk=world.invitation.pk).state == InvitationState.APPROVED
    send(browser, f"/invitations/{world.invitation.pk}/cancel/")
    assert Invitation.objects.get(pk=world.invitation.pk).state == InvitationState.CANCELLED
    assert "no key that waits" in send(browser, path)


def test_a_key_is_replaced_and_both_are_listed_with_their_states(browser: OverTls, world: World) -> None:
    key = new_public_key()
    form = urlencode({"public_key": key, "overlap_h": 2, "expires_at": ""})
    answer = browser.generic("POST", f"/devices/{world.device.pk}/rotate/", form, FORM)
    assert "This page is shown once" in answer.content.decode()
    text = browser.get("/clients/acme/").content.decode()
    assert "replaced" in text
    assert "expires in 1 hour" in text
    assert Device.objects.get(public_key=key).name == "laptop"


def test_an_alias_is_set_and_taken_away(browser: OverTls, world: World) -> None:
    send(browser, "/clients/acme/aliases/add/", alias="default", model=world.pin.name)
    alias = ClientAlias.objects.get(alias="default")
    assert "loads the first" in browser.get(f"/aliases/{alias.pk}/remove/").content.decode()
    send(browser, f"/aliases/{alias.pk}/remove/")
    assert not ClientAlias.objects.filter(pk=alias.pk).exists()


def test_a_model_is_activated_rolled_back_and_retired(browser: OverTls, world: World) -> None:
    new = f"/models/{world.verified.pin_id}/"
    asked = browser.get(f"{new}activate/").content.decode()
    assert f"takes the place of {world.pin}" in asked
    assert "2 clients may use tiny" in asked
    send(browser, f"{new}activate/")
    assert ModelPin.objects.get(pk=world.verified.pk).state == PinState.ACTIVE
    assert f"Roll back to {world.pin.version}" in browser.get(new).content.decode()
    send(browser, f"{new}roll-back/")
    assert ModelPin.objects.get(pk=world.pin.pk).state == PinState.ACTIVE
    assert "may use it" in send(browser, f"/models/{world.pin.pin_id}/retire/")
    send(browser, f"{new}retire/")
    assert ModelPin.objects.get(pk=world.verified.pk).state == PinState.RETIRED


@pytest.mark.parametrize("duty", Duty)
def test_a_node_gets_a_duty_after_it_was_said_what_that_means(browser: OverTls, duty: Duty) -> None:
    path = f"/nodes/node-a/duty/{duty.value}/"
    assert "What will happen" in browser.get(path).content.decode()
    send(browser, path)
    assert Node.objects.get().duty == duty


def test_a_plan_is_asked_for_and_shown(browser: OverTls) -> None:
    assert "Nobody has asked yet" in browser.get("/nodes/node-a/plan/").content.decode()
    assert "the next pass answers" in send(browser, "/nodes/node-a/plan/")
    NodePlan.objects.update(answered_at=timezone.now(), actions=["reload nginx"], total=3)
    text = browser.get("/nodes/node-a/plan/").content.decode()
    assert "reload nginx" in text
    assert "and 2 more" in text


def test_a_node_s_health_is_drawn(browser: OverTls) -> None:
    for hours in ("", "?hours=168", "?hours=never"):
        text = browser.get(f"/nodes/node-a/health/{hours}").content.decode()
        assert 'class="line"' in text
        assert "Processors" in text


def test_a_line_has_a_gap_where_nothing_was_told_and_stays_within_its_edges() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    points = [(start + timedelta(minutes=10 * n), None if 40 < n < 60 else float(n)) for n in range(144)]
    line = draw_line(points, start, start + timedelta(days=1), 100)
    assert line.path.count("M") == 2
    assert (line.least, line.most, line.last, line.top) == (0, 143, 143, 143)
    heights = [
        float(part.split(" ")[1]) for part in line.path.replace("h.1", "").replace("M", "L").split("L")[1:]
    ]
    assert min(heights) == 0
    assert max(heights) == HEIGHT
    assert draw_line([], start, start, 1).path == ""

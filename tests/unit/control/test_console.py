"""The console: deployment checks, headers, the admin under its own policy, logs without text."""

from __future__ import annotations

import html
import json
import logging
import re
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
from control_cast import OverTls, new_public_key
from django.contrib import admin
from django.contrib.auth.models import User
from django.urls import reverse
from signing_in import give_app, new_operator, sign_in

from appliance.core.client_configuration import ClientConfiguration
from appliance.core.errors import HostError
from control.clients.enrolment import add_device
from control.clients.models import Client, Device
from control.clients.requests import NewDevice
from control.config import VARIABLE, ControlConfig, read_config
from control.headers import CONTENT_SECURITY_POLICY
from control.logs import CodeFormatter, log_event
from control.startup import verify_database, verify_deployment

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def browser(operator: User) -> OverTls:
    made = OverTls()
    made.force_login(operator)
    return made


def test_deployment_checks_are_clean(db: None) -> None:
    verify_deployment()


def test_the_database_is_checked_for_durability(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connection

    verify_database()
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA foreign_keys")
            assert cursor.fetchone() == (1,)


def pages() -> list[str]:
    models = [f"{m._meta.app_label}_{m._meta.model_name}" for m in admin.site._registry]
    return ["admin:index", *(f"admin:{model}_changelist" for model in models)]


@pytest.mark.parametrize("page", pages())
def test_every_page_of_the_admin_works_under_its_policy(browser: OverTls, acme: Client, page: str) -> None:
    answer = browser.get(reverse(page))
    assert answer.status_code == 200
    assert answer["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Cache-Control"] == "no-store"
    text = answer.content.decode()
    # Inline code would not run under the policy: a page that needs it is broken.
    assert not re.search(r"<script(?![^>]*(src=|application/json|text/html))[^>]*>", text)
    assert not re.search(r"\son[a-z]+=|style=\"", text)
    for asset in re.findall(r"(?:src|href)=\"(/static/[^\"]+)\"", text):
        served = browser.get(asset)
        assert served.status_code == 200
        served.close()


def test_secrets_never_show_in_the_admin(browser: OverTls, acme: Client) -> None:
    configuration = add_device(NewDevice(client="acme", name="laptop", public_key=new_public_key()))
    device = Device.objects.get()
    for page, row in (("clients_device", device.pk), ("clients_client", acme.pk)):
        text = browser.get(reverse(f"admin:{page}_change", args=[row])).content.decode()
        assert "laptop" in text or "acme" in text  # positive control: it is that page
        for secret in (
            configuration.token,
            device.token_sha256,
            device.sealed_preshared_key,
            acme.pseudonym_key,
        ):
            assert secret not in text


def test_the_admin_changes_clients_through_the_services_only(browser: OverTls, acme: Client) -> None:
    changelist = reverse("admin:clients_client_changelist")
    chosen = {"action": "delete_selected", "_selected_action": [acme.pk]}
    browser.post(changelist, chosen)
    assert Client.objects.filter(pk=acme.pk).exists()
    browser.post(changelist, {"action": "revoke", "_selected_action": [acme.pk]})
    acme.refresh_from_db()
    assert acme.state == "revoked"


def test_an_operator_adds_a_client_and_its_device_in_the_console(
    browser: OverTls, node: object, pin: object
) -> None:
    add_client, add = reverse("admin:clients_client_add"), reverse("admin:clients_device_add")
    assert browser.get(add_client).status_code == 200
    assert browser.generic("POST", add_client, urlencode({"name": "acme"}), FORM).status_code == 302
    key = new_public_key()
    form = {"client": "acme", "name": "laptop", "public_key": key}
    shown = browser.generic("POST", add, urlencode(form), FORM)
    assert shown.status_code == 200
    assert shown["Cache-Control"] == "no-store"
    text = html.unescape(shown.content.decode())
    given = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
    assert ClientConfiguration.parse(given).public_key == key
    # Once: the token is nowhere in the console afterwards.
    device = Device.objects.get(name="laptop")
    page = browser.get(reverse("admin:clients_device_change", args=[device.pk])).content.decode()
    assert given["token"] not in page


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "a b"}, "single hyphens"),
        ({"public_key": "AAAA"}, "not 32 bytes"),
        ({"client": "bolt"}, "valid choice"),
    ],
)
def test_a_bad_device_is_refused_beside_its_field(
    browser: OverTls, acme: Client, change: dict[str, str], word: str
) -> None:
    form = {"client": "acme", "name": "laptop", "public_key": new_public_key(), **change}
    page = browser.generic("POST", reverse("admin:clients_device_add"), urlencode(form), FORM)
    assert page.status_code == 200
    assert word in page.content.decode()
    assert not Device.objects.exists()


def test_a_colleague_without_the_right_adds_nothing(node: object, acme: Client) -> None:
    browser = OverTls()
    browser.force_login(User.objects.create_user("victor", is_staff=True))
    for page in ("client", "device"):
        assert browser.get(reverse(f"admin:clients_{page}_add")).status_code == 403


def test_the_session_cookie_is_bound_to_this_host_and_tls(db: None) -> None:
    browser = sign_in("ada", give_app(new_operator("ada")))
    cookie = browser.cookies["__Host-session"]
    assert cookie["secure"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert browser.get("/admin/", headers={"host": "evil.example"}).status_code == 400


def test_nothing_outside_the_static_folders_is_served(browser: OverTls) -> None:
    for path in ("../settings.py", "..%2fsettings.py", "/etc/passwd", "admin/../../x", ""):
        assert browser.get(f"/static/{path}").status_code in (404, 301, 400)


def test_a_log_line_holds_codes_and_never_a_message() -> None:
    logger = logging.getLogger("test.codes")
    record = logger.makeRecord("test.codes", logging.ERROR, "f", 1, "secret %s", ("words",), None)
    assert "secret" not in CodeFormatter().format(record)
    assert "words" not in CodeFormatter().format(record)
    try:
        raise ValueError("secret words")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = json.loads(CodeFormatter().format(record))
    assert line["exception"] == "ValueError"
    assert line["where"].startswith("test_a_log_line")
    assert "secret" not in json.dumps(line)


def test_our_codes_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="test.codes"):
        log_event(logging.getLogger("test.codes"), logging.INFO, "revoked", peers=3)
    line = json.loads(CodeFormatter().format(caplog.records[-1]))
    assert (line["code"], line["peers"]) == ("revoked", 3)


def test_without_a_settings_file_nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(HostError) as missing:
        read_config()
    assert "init" in str(missing.value.hint)
    file = tmp_path / "control.json"
    for text in ("", "[]", '{"v":1}', '{"v":2}'):
        file.write_text(text)
        with pytest.raises(HostError):
            read_config(file)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("listen.address", "0.0.0.0"),
        ("listen.address", "::"),
        ("listen.port", 0),
        ("allowed_hosts", []),
        ("allowed_hosts", ["*"]),
        ("state_dir", "relative"),
        ("interval_s", 0),
        ("debug", True),
    ],
)
def test_a_bad_setting_is_refused_with_its_name(tmp_path: Path, path: str, value: object) -> None:
    good = {"state_dir": "/x", "allowed_hosts": ["10.0.0.1"], "listen": {"address": "10.0.0.1"}}
    ControlConfig.parse(json.loads(json.dumps(good)))
    place = good
    *parents, last = path.split(".")
    for parent in parents:
        place = place[parent]  # type: ignore[assignment]
    place[last] = value  # type: ignore[assignment]
    file = tmp_path / "control.json"
    file.write_text(json.dumps(good))
    with pytest.raises(HostError, match=path):
        read_config(file)

"""What is dangerous asks for the second factor anew: an open session alone does not suffice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from control_cast import OverTls
from django.contrib.auth.models import User
from django.urls import reverse
from signing_in import FORM, App, give_app, give_codes, is_in, new_operator, post, sign_in

from control.clients.models import Client
from control.operators.login import FREE
from control.operators.models import ApiToken, AppSecret, Passkey
from control.operators.roles import Role
from control.operators.services import NewToken, create_token
from control.operators.stepup import FRESH

pytestmark = pytest.mark.django_db

DANGEROUS = (
    "/account/add-factor/",
    "/account/recovery-codes/",
    "/account/app/remove/",
    "/admin/password_change/",
)


@pytest.fixture
def root() -> User:
    return new_operator("root", Role.ADMINISTRATOR)


@pytest.fixture
def app(root: User) -> App:
    return give_app(root)


@pytest.fixture
def browser(app: App) -> OverTls:
    return sign_in("root", app)


@pytest.fixture
def go_stale(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let as much time pass as a factor stays fresh."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def pass_by() -> None:
        ahead[0] += FRESH.total_seconds() + 1

    return pass_by


def test_dangerous_pages_ask_again_after_minutes_and_the_others_do_not(
    browser: OverTls, app: App, go_stale: Callable[[], None]
) -> None:
    for path in DANGEROUS:
        assert browser.get(path).status_code == 200, path
    go_stale()
    for path in DANGEROUS:
        for answer in (browser.get(path), post(browser, path)):
            assert answer["Location"] == f"/account/step-up/?next={path.replace('/', '%2F')}"
    for path in ("/account/", "/admin/"):
        assert browser.get(path).status_code == 200
    before = browser.cookies["__Host-session"].value
    answer = post(browser, f"/account/step-up/?next={DANGEROUS[0]}", code=app.code())
    assert answer["Location"] == DANGEROUS[0]
    assert browser.cookies["__Host-session"].value != before
    for path in DANGEROUS:
        assert browser.get(path).status_code == 200
    thief = OverTls()
    thief.cookies["__Host-session"] = before
    assert not is_in(thief)


def test_who_is_nobody_is_led_to_the_login() -> None:
    for path in DANGEROUS:
        assert OverTls().get(path)["Location"] == f"/login/?next={path}"


def test_a_revocation_in_the_admin_asks_for_it(
    browser: OverTls, app: App, go_stale: Callable[[], None], acme: Client
) -> None:
    changelist = reverse("admin:clients_client_changelist")
    go_stale()
    chosen = {"action": "revoke", "_selected_action": str(acme.pk)}
    asked = post(browser, changelist, **chosen)
    assert asked["Location"].startswith("/account/step-up/?next=%2Fadmin%2Fclients%2Fclient")
    hidden = f"action=revoke&action=&index=0&_selected_action={acme.pk}"
    assert browser.generic("POST", changelist, hidden, FORM)["Location"].startswith("/account/step-up/")
    acme.refresh_from_db()
    assert acme.state == "active"
    assert post(browser, asked["Location"], code=app.code())["Location"] == changelist
    post(browser, changelist, **chosen)
    acme.refresh_from_db()
    assert acme.state == "revoked"


def test_so_does_the_deletion_of_a_token(browser: OverTls, app: App, go_stale: Callable[[], None]) -> None:
    create_token(NewToken(operator="root", name="t"))
    page = reverse("admin:operators_apitoken_delete", args=[ApiToken.objects.get().pk])
    go_stale()
    assert post(browser, page, post="yes")["Location"].startswith("/account/step-up/")
    several = {"action": "delete_selected", "_selected_action": str(ApiToken.objects.get().pk), "post": "yes"}
    changelist = reverse("admin:operators_apitoken_changelist")
    assert post(browser, changelist, **several)["Location"].startswith("/account/step-up/")
    assert ApiToken.objects.exists()
    post(browser, "/account/step-up/", code=app.code())
    post(browser, page, post="yes")
    assert not ApiToken.objects.exists()


def test_wrong_codes_count_here_too(browser: OverTls, app: App, go_stale: Callable[[], None]) -> None:
    go_stale()
    for _ in range(FREE):
        post(browser, "/account/step-up/", code="000000")
    page = post(browser, "/account/step-up/", code=app.code()).content.decode()
    assert "Too many attempts" in page
    assert browser.get(DANGEROUS[0]).status_code == 302


def test_the_code_of_the_login_is_not_taken_again(app: App, root: User) -> None:
    browser = sign_in("root", app)
    assert "used before" in post(browser, "/account/step-up/", code=app.code()).content.decode()
    code = give_codes(root)[0]
    assert post(browser, "/account/step-up/", code=code)["Location"] == "/account/"
    assert "used before" in post(browser, "/account/step-up/", code=code).content.decode()


def test_it_leads_to_no_other_host(browser: OverTls, app: App) -> None:
    answer = post(browser, "/account/step-up/", code=app.code(1), next="https://evil.example/")
    assert answer["Location"] == "/account/"


def test_the_last_factor_cannot_be_removed(browser: OverTls, root: User) -> None:
    give_codes(root)
    page = post(browser, "/account/app/remove/").content.decode()
    assert "last second factor" in page
    assert AppSecret.objects.filter(user=root).exists()
    key = Passkey.objects.create(
        user=root, name="key", rp_id="x", credential=b"", credential_sha256="0", counter=0
    )
    assert post(browser, "/account/app/remove/")["Location"] == "/account/"
    assert not AppSecret.objects.filter(user=root).exists()
    assert "last second factor" in post(browser, f"/account/passkeys/{key.pk}/remove/").content.decode()
    assert Passkey.objects.filter(user=root).exists()


def test_nobody_removes_another_s_passkey(browser: OverTls) -> None:
    key = Passkey.objects.create(
        user=new_operator("bob"), name="key", rp_id="x", credential=b"", credential_sha256="0", counter=0
    )
    for method in ("GET", "POST"):
        assert browser.generic(method, f"/account/passkeys/{key.pk}/remove/").status_code == 404
    assert Passkey.objects.exists()


def test_a_new_app_takes_the_place_of_the_one_before(browser: OverTls, app: App) -> None:
    import base64
    import re

    page = browser.get("/account/add-factor/").content.decode()
    assert "This replaces the app" in page
    found = re.search(r'class="secret">([A-Z2-7 ]+)<', page)
    assert found
    new = App(base64.b32decode(found[1].replace(" ", "")))
    assert post(browser, "/account/add-factor/", code=app.code(1)).status_code == 200, (
        "the old app shows nothing"
    )
    assert post(browser, "/account/add-factor/", code=new.code())["Location"] == "/account/"
    assert post(browser, "/account/step-up/", code=app.code(1)).status_code == 200
    assert post(browser, "/account/step-up/", code=new.code(1)).status_code == 302

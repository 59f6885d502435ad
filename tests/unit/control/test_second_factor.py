"""The second factor: without it nobody is anybody, and it is verified once, in time, and not by guessing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from control_cast import OverTls
from django.contrib.auth.models import User
from django.db.models import F
from rest_framework.test import APIClient
from signing_in import (
    PASSWORD,
    App,
    give_app,
    give_codes,
    give_password,
    is_in,
    new_operator,
    post,
    random_code,
    sign_in,
)

from appliance.cli import main
from appliance.core.errors import HostError, RefusedError
from control.headers import CONTENT_SECURITY_POLICY
from control.operators import sealing, totp
from control.operators.factors import CODES
from control.operators.login import FREE, wait_of
from control.operators.models import AppSecret, LoginFailures, OperatorSession, RecoveryCode
from control.operators.pending import LASTS_S
from control.operators.services import NewToken, create_token, disable_operator, reset_factor

pytestmark = pytest.mark.django_db

INSIDE = (
    "/",
    "/admin/",
    "/admin/clients/client/",
    "/admin/password_change/",
    "/account/",
    "/account/step-up/",
    "/account/add-factor/",
    "/account/recovery-codes/",
    "/account/app/remove/",
)
Clock = Callable[[float], None]


@pytest.fixture
def ada() -> User:
    return new_operator("ada")


@pytest.fixture
def app(ada: User) -> App:
    return give_app(ada)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let seconds pass."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def let_pass(seconds: float) -> None:
        ahead[0] += seconds

    return let_pass


def nobody_is_in(browser: OverTls) -> None:
    """Check that a browser is led to the login by every page, and refused by the API."""
    for path in INSIDE:
        answer = browser.get(path, follow=True)
        assert answer.redirect_chain[-1][0].startswith("/login/"), path
        assert post(browser, path).status_code in {302, 405}
    assert browser.get("/api/v1/clients").status_code == 401
    assert browser.post("/api/v1/clients", {"name": "acme"}, format="json").status_code == 401


# Skipping it.


def test_a_password_alone_reaches_nothing(app: App) -> None:
    browser = OverTls()
    assert give_password(browser, "ada")["Location"] == "/login/factor/"
    nobody_is_in(browser)
    assert post(browser, "/login/factor/", code=app.code())["Location"] == "/"
    assert is_in(browser)
    assert browser.get("/admin/").status_code == 200
    assert browser.get("/api/v1/clients").status_code == 200


def test_nor_does_a_factor_without_a_password(app: App) -> None:
    browser = OverTls()
    answer = post(browser, "/login/factor/", code=app.code())
    assert answer["Location"] == "/login/"
    assert post(browser, "/login/set-up/", code=app.code())["Location"] == "/login/"
    nobody_is_in(browser)


def test_a_session_that_django_began_without_a_factor_is_nobody_s(app: App, ada: User) -> None:
    for verified in (True, False):
        browser = OverTls()
        browser.verified = verified
        browser.force_login(ada)
        assert (browser.get("/api/v1/clients").status_code == 200) is verified
        browser.force_login(ada)
        assert (browser.get("/admin/").status_code == 200) is verified


def test_the_admin_has_no_login_of_its_own(app: App) -> None:
    browser = OverTls()
    form = {"username": "ada", "password": PASSWORD}
    assert post(browser, "/admin/login/?next=/admin/", **form)["Location"] == "/login/?next=/admin/"
    nobody_is_in(browser)


def test_a_token_needs_no_second_factor(ada: User) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {create_token(NewToken(operator='ada', name='t'))}")
    assert client.get("/api/v1/clients", secure=True).status_code == 200


# Setting the first one up.


def test_the_first_login_leads_into_setting_one_up_and_nowhere_else(ada: User) -> None:
    browser = OverTls()
    give_password(browser, "ada", next="/admin/")
    assert browser.get("/login/factor/")["Location"] == "/login/set-up/"
    page = browser.get("/login/set-up/").content.decode()
    nobody_is_in(browser)
    app = App(secret_on(page))
    assert "is not what the app shows" in post(browser, "/login/set-up/", code=app.code(5)).content.decode()
    assert secret_on(browser.get("/login/set-up/").content.decode()) == app.secret, "no second scan"
    nobody_is_in(browser)
    page = post(browser, "/login/set-up/", code=app.code()).content.decode()
    assert is_in(browser)
    assert 'href="/admin/"' in page
    codes = re.findall(r"<li><code>([a-z2-7-]+)</code>", page)
    assert len(codes) == CODES == RecoveryCode.objects.filter(user=ada).count()
    other = OverTls()
    give_password(other, "ada")
    assert "used before" in post(other, "/login/factor/", code=app.code()).content.decode(), (
        "nor its first code"
    )
    assert post(other, "/login/factor/", code=codes[0]).status_code == 302


def secret_on(page: str) -> bytes:
    import base64

    found = re.search(r'class="secret">([A-Z2-7 ]+)<', page)
    assert found
    return base64.b32decode(found[1].replace(" ", ""))


def test_who_has_a_factor_cannot_set_up_another_with_the_password_alone(ada: User) -> None:
    early, late = OverTls(), OverTls()
    for browser in (early, late):
        give_password(browser, "ada")
    mine, theirs = (App(secret_on(b.get("/login/set-up/").content.decode())) for b in (early, late))
    assert mine.secret != theirs.secret
    assert post(early, "/login/set-up/", code=mine.code()).status_code == 200
    assert post(late, "/login/set-up/", code=theirs.code())["Location"] == "/login/factor/"
    assert not is_in(late)
    assert AppSecret.objects.get().sealed
    assert late.get("/login/set-up/")["Location"] == "/login/factor/"


def test_two_set_ups_at_once_leave_one_factor(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second sees no factor when it begins, and one when it has the row to itself."""
    from control.operators import signin

    browser = OverTls()
    give_password(browser, "ada")
    app = App(secret_on(browser.get("/login/set-up/").content.decode()))
    give_app(ada)
    monkeypatch.setattr(signin, "has_factor", lambda user: False)
    assert "set up meanwhile" in post(browser, "/login/set-up/", code=app.code()).content.decode()
    assert not is_in(browser)


# Codes of an app.


def test_a_code_is_taken_once(app: App) -> None:
    sign_in("ada", app)
    again = OverTls()
    give_password(again, "ada")
    assert "used before" in post(again, "/login/factor/", code=app.code()).content.decode()
    assert not is_in(again)
    assert post(again, "/login/factor/", code=app.code(1)).status_code == 302


def test_nor_is_a_code_from_before_the_last_one_taken(app: App) -> None:
    sign_in("ada", app, steps=1)
    late = OverTls()
    give_password(late, "ada")
    for steps in (-1, 0, 1):
        post(late, "/login/factor/", code=app.code(steps))
        assert not is_in(late)


def test_of_two_requests_with_one_code_one_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the row before either writes it."""
    browser, real = OverTls(), totp.matching_step
    give_password(browser, "ada")

    def overtaken(*args: Any, **kwargs: Any) -> int | None:
        step = real(*args, **kwargs)
        AppSecret.objects.update(last_step=step)
        return step

    monkeypatch.setattr(totp, "matching_step", overtaken)
    assert post(browser, "/login/factor/", code=app.code()).status_code == 200
    assert not is_in(browser)


@pytest.mark.parametrize(("steps", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_device_s_clock_may_be_one_step_off(app: App, steps: int, good: bool) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    post(browser, "/login/factor/", code=app.code(steps))
    assert is_in(browser) is good


def test_another_operator_s_code_is_nothing(app: App) -> None:
    theirs = give_app(new_operator("bob"))
    browser = OverTls()
    give_password(browser, "ada")
    post(browser, "/login/factor/", code=theirs.code())
    assert not is_in(browser)


# Recovery codes.


def test_a_recovery_code_is_taken_once_however_it_is_typed(ada: User, app: App) -> None:
    first, second, *_ = give_codes(ada)
    for typed, good in ((f" {first.upper()} ", True), (first, False), (second.replace("-", ""), True)):
        browser = OverTls()
        give_password(browser, "ada")
        post(browser, "/login/factor/", code=typed)
        assert is_in(browser) is good
    assert RecoveryCode.objects.count() == CODES - 2


def test_new_recovery_codes_end_those_before_and_are_nobody_else_s(ada: User, app: App) -> None:
    old = give_codes(ada)[0]
    new = give_codes(ada)[0]
    bob = new_operator("bob")
    give_app(bob)
    for name, code, good in (
        ("ada", old, False),
        ("bob", new, False),
        ("ada", random_code(), False),
        ("ada", new, True),
    ):
        browser = OverTls()
        give_password(browser, name)
        post(browser, "/login/factor/", code=code)
        assert is_in(browser) is good


def test_recovery_codes_alone_are_no_second_factor(ada: User) -> None:
    code = give_codes(ada)[0]
    browser = OverTls()
    give_password(browser, "ada")
    assert post(browser, "/login/factor/", code=code)["Location"] == "/login/set-up/"


# Guessing.


def test_wrong_codes_count_and_a_right_password_does_not_forget_them(app: App) -> None:
    browser = OverTls()
    for attempt in range(FREE):
        assert give_password(browser, "ada").status_code == 302, (
            "who has the password comes back again and again"
        )
        post(browser, "/login/factor/", code="000000" if attempt % 2 else random_code())
    assert wait_of("ada") > timedelta(seconds=10)
    page = post(browser, "/login/factor/", code=app.code()).content.decode()
    assert "Too many attempts" in page
    assert not is_in(browser)
    assert "Too many attempts" in give_password(OverTls(), "ada").content.decode()
    LoginFailures.objects.update(last_at=F("last_at") - timedelta(seconds=16))
    assert post(browser, "/login/factor/", code=app.code()).status_code == 302
    assert not LoginFailures.objects.exists()


def test_a_guess_that_is_not_looked_at_costs_no_code(app: App) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    for _ in range(FREE):
        post(browser, "/login/factor/", code="000000")
    post(browser, "/login/factor/", code=app.code())
    assert AppSecret.objects.get().last_step == 0


# Sessions on the way in.


def test_the_session_s_key_changes_with_the_password_and_with_the_factor(app: App) -> None:
    """Who planted a cookie before has nobody's session afterwards."""
    browser, keys = OverTls(), []
    browser.session.save()
    for step in (
        lambda: browser.get("/login/"),
        lambda: give_password(browser, "ada"),
        lambda: post(browser, "/login/factor/", code=app.code()),
    ):
        step()
        cookie = browser.cookies.get("__Host-session")
        keys.append(cookie.value if cookie else "none")
    assert len(set(keys)) == 3
    assert is_in(browser)
    for planted in keys[:2]:
        attacker = OverTls()
        attacker.cookies["__Host-session"] = planted
        nobody_is_in(attacker)
        assert attacker.get("/login/factor/")["Location"] == "/login/"


def test_what_a_session_held_before_the_password_is_not_in_the_one_after(ada: User, app: App) -> None:
    browser = OverTls()
    session = browser.session
    session["factor"] = {"kind": "passkey", "at": int(time.time())}
    session.save()
    browser.cookies["__Host-session"] = session.session_key
    give_password(browser, "ada")
    assert set(browser.session.keys()) == {"pending"}


def test_a_password_is_remembered_for_minutes_only(app: App, pass_time: Clock) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    pass_time(LASTS_S + 1)
    assert post(browser, "/login/factor/", code=app.code())["Location"] == "/login/"


@pytest.mark.parametrize("change", ["password", "disabled"])
def test_nor_longer_than_it_is_good(ada: User, app: App, change: str) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    if change == "disabled":
        disable_operator("ada")
    else:
        ada.set_password("another long password")
        ada.save()
    assert post(browser, "/login/factor/", code=app.code())["Location"] == "/login/"
    assert not is_in(browser)


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "http://testserver/"]
)
def test_the_login_leads_to_no_other_host(app: App, wanted: str) -> None:
    browser = OverTls()
    give_password(browser, "ada", next=wanted)
    assert post(browser, "/login/factor/", code=app.code())["Location"] == "/"
    assert browser.get(f"/login/?next={wanted}")["Location"] == "/"
    assert browser.get("/login/?next=/admin/")["Location"] == "/admin/"


# At rest.


def test_no_row_holds_a_secret_or_a_recovery_code(ada: User) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    secret = secret_on(browser.get("/login/set-up/").content.decode())
    rows = json.dumps([row.get_decoded() for row in OperatorSession.objects.all()])
    page = post(browser, "/login/set-up/", code=App(secret).code()).content.decode()
    codes = re.findall(r"<li><code>([a-z2-7-]+)</code>", page)
    rows += json.dumps([row.get_decoded() for row in OperatorSession.objects.all()])
    rows += str(list(AppSecret.objects.values())) + str(list(RecoveryCode.objects.values()))
    assert "sealed" in rows
    for hidden in (totp.text_of(secret), secret.hex(), *codes, *(code.replace("-", "") for code in codes)):
        assert hidden not in rows
    assert sealing.open_secret(AppSecret.objects.get().sealed, f"operators/app/{ada.pk}") == secret


def test_a_sealed_secret_opens_for_its_operator_alone_and_unchanged() -> None:
    sealed = sealing.seal_secret(b"secret", "operators/app/1")
    assert sealing.open_secret(sealed, "operators/app/1") == b"secret"
    other = "B" if sealed[20] == "A" else "A"
    for text, context in (
        (sealed, "operators/app/2"),
        (sealed[:20] + other + sealed[21:], "operators/app/1"),
        (sealed[:8], "operators/app/1"),
        ("", "operators/app/1"),
    ):
        with pytest.raises(RefusedError):
            sealing.open_secret(text, context)
    assert sealing.seal_secret(b"secret", "operators/app/1") != sealed


@pytest.mark.parametrize("content", [None, "AAAA\n", "no base64\n"])
def test_without_the_key_nothing_is_served(settings: Any, content: str | None) -> None:
    path = settings.PATHS.factor_key
    kept = path.read_bytes()
    sealing.verify_factor_key()
    try:
        path.unlink()
        if content is not None:
            path.write_text(content)
        sealing._cipher.cache_clear()
        with pytest.raises(HostError) as refused:
            sealing.verify_factor_key()
        assert refused.value.hint
    finally:
        path.write_bytes(kept)
        path.chmod(0o600)
        sealing._cipher.cache_clear()


def test_another_key_refuses_the_code_and_leaves_the_other_factors(ada: User, app: App) -> None:
    code = give_codes(ada)[0]
    AppSecret.objects.update(sealed=sealing.seal_secret(b"x" * 20, "another"))
    browser = OverTls()
    give_password(browser, "ada")
    assert "does not open" in post(browser, "/login/factor/", code=app.code()).content.decode()
    assert post(browser, "/login/factor/", code=code).status_code == 302


# Losing all of it.


def test_a_reset_ends_sessions_and_demands_a_new_set_up(ada: User, app: App) -> None:
    code = give_codes(ada)[0]
    token = APIClient()
    token.credentials(HTTP_AUTHORIZATION=f"Bearer {create_token(NewToken(operator='ada', name='t'))}")
    here, bob = sign_in("ada", app), sign_in("bob", give_app(new_operator("bob")))
    reset_factor("ada")
    nobody_is_in(here)
    assert is_in(bob)
    assert token.get("/api/v1/clients", secure=True).status_code == 200
    give_password(here, "ada")
    assert post(here, "/login/factor/", code=code)["Location"] == "/login/set-up/"
    assert not RecoveryCode.objects.filter(user=ada).exists()


def test_only_the_command_line_of_the_management_machine_resets(
    ada: User, app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["control", "operator", "reset-factor", "ada", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "name": "ada"}
    assert not AppSecret.objects.exists()
    assert main(["control", "operator", "reset-factor", "nobody", "--json"]) == 1
    assert "operator list" in json.loads(capsys.readouterr().out)["error"]["hint"]


# The pages.


def test_every_page_is_within_the_policy_and_says_what_it_is(ada: User) -> None:
    browser = OverTls()
    pages = [("/login/", browser.get("/login/"))]
    pages.append(("refused", give_password(browser, "ada", "wrong")))
    give_password(browser, "ada")
    pages.append(("/login/set-up/", browser.get("/login/set-up/")))
    app = App(secret_on(pages[-1][1].content.decode()))
    pages.append(("codes", post(browser, "/login/set-up/", code=app.code())))
    inside = (
        "/account/",
        "/account/step-up/",
        "/account/add-factor/",
        "/account/recovery-codes/",
        "/account/app/remove/",
    )
    pages += [(path, browser.get(path)) for path in inside]
    pages.append(("/login/factor/", factor_page(ada)))
    for name, answer in pages:
        text = answer.content.decode()
        assert answer.status_code == 200, name
        assert answer["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert answer["Cache-Control"] == "no-store"
        assert not re.search(r"<script(?![^>]*src=)[^>]*>|<style|\sstyle=|\son[a-z]+=|data:", text), name
        assert '<html lang="en">' in text
        assert len(re.findall("<h1>", text)) == 1, name
        for field in re.findall(r"<input(?![^>]*type=\"hidden\")[^>]*>", text):
            found = re.search(r' id="([^"]+)"', field)
            assert found, field
            assert f'<label for="{found[1]}"' in text, (name, field)
        for asset in re.findall(r"(?:src|href)=\"(/static/[^\"]+)\"", text):
            served = browser.get(asset)
            assert served.status_code == 200
            served.close()


def factor_page(user: User) -> Any:
    browser = OverTls()
    give_password(browser, user.username)
    return browser.get("/login/factor/")

"""Sessions of operators: each is listed to its owner and can be ended; none lasts longer than its time."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Any

import pytest
from control_cast import OverTls
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import F
from django.utils import timezone
from rest_framework.test import APIClient
from signing_in import PASSWORD, App, give_app, is_in, new_operator, post, sign_in

from control.operators.browsers import describe_browser
from control.operators.models import AppSecret, OperatorSession, Passkey
from control.operators.services import NewToken, create_token, disable_operator, sign_out
from control.operators.sessions import MOST, SEEN_EVERY_S

pytestmark = pytest.mark.django_db
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def app() -> App:
    return give_app(new_operator("ada"))


def another(app: App, name: str = "ada") -> OverTls:
    AppSecret.objects.update(last_step=0)
    return sign_in(name, app)


def handles(browser: OverTls) -> dict[str, bool]:
    """The handles on one's page, and whether each is this session's."""
    page = browser.get("/account/").content.decode()
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", page, re.DOTALL)
    found = {
        h[1]: "this session" in row for row in rows if (h := re.search(r'name="session" value="(\w+)"', row))
    }
    assert sum(found.values()) == 1
    return found


def test_one_s_sessions_are_listed_and_each_can_be_ended(app: App) -> None:
    here, there = another(app), another(app)
    mine = next(handle for handle, current in handles(here).items() if current)
    theirs = next(handle for handle, current in handles(here).items() if not current)
    assert handles(there) == {theirs: True, mine: False}
    assert post(here, "/account/sessions/end/", session=theirs).status_code == 302
    assert is_in(here)
    assert not is_in(there)
    assert there.get("/api/v1/clients").status_code == 401
    assert post(here, "/account/sessions/end/", session=mine)["Location"] == "/account/"
    assert not is_in(here)
    assert not OperatorSession.objects.filter(user__isnull=False).exists()


def test_nobody_ends_another_s(app: App) -> None:
    mine = another(app)
    other = sign_in("bob", give_app(new_operator("bob")))
    (handle,) = handles(mine)
    assert post(other, "/account/sessions/end/", session=handle).status_code == 404
    post(other, "/account/sessions/end/", session="others")
    assert is_in(mine)
    assert handle not in handles(other)


def test_all_others_can_be_ended_at_once(app: App) -> None:
    here, *there = (another(app) for _ in range(4))
    assert post(here, "/account/sessions/end/", session="others").status_code == 302
    assert is_in(here)
    assert not any(is_in(browser) for browser in there)


def test_a_page_says_nothing_of_a_cookie_and_of_a_browser_only_words_of_ours(app: App) -> None:
    AppSecret.objects.update(last_step=0)
    browser = OverTls(headers={"user-agent": f"<b>secret words</b> {FIREFOX}"})
    sign_in("ada", app, browser)
    page = browser.get("/account/").content.decode()
    assert "Firefox on Linux (this session)" in page
    assert "127.0.0.1" in page
    assert browser.cookies["__Host-session"].value not in page
    assert "secret words" not in page + str([row.get_decoded() for row in OperatorSession.objects.all()])


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (FIREFOX, "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/142.0 Safari/537.36 Edg/142.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 Chrome/142.0 Safari/537.36",
            "Chrome on Android",
        ),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Version/26.0 Safari/605.1", "Safari on macOS"),
        ("", "a browser on some system"),
    ],
)
def test_a_browser_is_named_in_words_of_ours(agent: str, words: str) -> None:
    assert describe_browser(agent) == words


def test_an_operator_s_sessions_can_all_be_ended_and_tokens_stay(app: App) -> None:
    here, there = another(app), another(app)
    bob = sign_in("bob", give_app(new_operator("bob")))
    token = APIClient()
    token.credentials(HTTP_AUTHORIZATION=f"Bearer {create_token(NewToken(operator='ada', name='t'))}")
    sign_out("ada")
    assert not is_in(here)
    assert not is_in(there)
    assert here.get("/api/v1/clients").status_code == 401
    assert is_in(bob)
    assert token.get("/api/v1/clients", secure=True).status_code == 200
    assert is_in(another(app))


def test_so_can_those_of_a_superuser_from_before_there_were_roles() -> None:
    root = User.objects.create_superuser("root", password=PASSWORD)
    browser = sign_in("root", give_app(root))
    assert browser.get("/admin/").status_code == 200
    sign_out("root")
    assert browser.get("/admin/").status_code == 302


def test_a_disabled_operator_has_no_session_left(app: App) -> None:
    browser = another(app)
    disable_operator("ada")
    assert not is_in(browser)
    assert not OperatorSession.objects.filter(user__isnull=False).exists()


def test_a_session_ends_when_its_time_is_over_however_much_it_is_used(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = another(app)
    began = OperatorSession.objects.get(user__username="ada")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + SEEN_EVERY_S + 1)
    assert is_in(browser)
    used = OperatorSession.objects.get(user__username="ada")
    assert used.get_decoded()["seen_at"] > began.get_decoded()["seen_at"]
    assert used.expire_date <= began.expire_date
    assert used.expire_date <= timezone.now() + timedelta(seconds=settings.SESSION_COOKIE_AGE)
    OperatorSession.objects.update(
        expire_date=F("expire_date") - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    )
    assert not is_in(browser)


def test_being_used_is_written_down_once_in_some_minutes(
    app: App, django_assert_max_num_queries: Any
) -> None:
    browser = another(app)
    browser.get("/account/")
    before = OperatorSession.objects.get(user__username="ada").session_data
    browser.get("/account/")
    assert OperatorSession.objects.get(user__username="ada").session_data == before


def test_one_session_too_many_ends_the_oldest_and_what_is_over_goes(app: App) -> None:
    browsers = [another(app)]
    OperatorSession.objects.filter(user__username="ada").update(
        expire_date=F("expire_date") - timedelta(minutes=1)
    )
    browsers += [another(app) for _ in range(MOST)]
    assert OperatorSession.objects.filter(user__username="ada").count() == MOST
    assert not is_in(browsers[0])
    assert all(is_in(browser) for browser in browsers[1:])
    OperatorSession.objects.update(expire_date=timezone.now() - timedelta(days=1))
    another(app)
    assert OperatorSession.objects.filter(user__username="ada").count() == 1


def test_a_page_of_many_sessions_and_passkeys_costs_no_more_queries(
    app: App, django_assert_max_num_queries: Any
) -> None:
    browsers = [another(app) for _ in range(MOST)]
    user = User.objects.get(username="ada")
    for number in range(10):
        Passkey.objects.create(
            user=user,
            name=f"key-{number}",
            rp_id="x",
            credential=b"",
            credential_sha256=str(number),
            counter=0,
        )
    with django_assert_max_num_queries(6):
        page = browsers[0].get("/account/").content.decode()
    assert page.count('name="session"') == MOST + 1
    assert "key-9" in page


def test_a_new_password_ends_the_sessions_that_the_old_one_began(app: App) -> None:
    here, there = another(app), another(app)
    new = "another long password"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert post(here, "/admin/password_change/", **form).status_code == 302
    assert is_in(here)
    assert not is_in(there)

"""The console's login: guessing takes long, names cannot be learned, and sessions can be ended."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

import pytest
from control_cast import OverTls
from django.contrib.auth.models import User
from django.db.models import F
from rest_framework.test import APIClient

from control.operators.login import FORGOTTEN, FREE, LONGEST_WAIT, wait_of
from control.operators.models import LoginFailures
from control.operators.roles import Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token, sign_out

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def ada() -> User:
    return create_operator(NewOperator(name="ada", role=Role.VIEWER), PASSWORD)


def sign_in(name: str, password: str, browser: OverTls | None = None) -> tuple[int, str]:
    form = urlencode({"username": name, "password": password})
    answer = (browser or OverTls()).generic("POST", "/admin/login/", form, FORM)
    return answer.status_code, answer.content.decode()


def let_pass(time: timedelta) -> None:
    LoginFailures.objects.update(last_at=F("last_at") - time)


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_who_fails_too_often_waits_whether_the_name_is_somebodys_or_not(ada: User, name: str) -> None:
    for _ in range(FREE):
        status, page = sign_in(name, "wrong")
        assert status == 200
        assert ("Try again in" in page) is (_ == FREE - 1), "the last one says so already"
    status, page = sign_in(name, PASSWORD)
    assert (status, "Too many attempts" in page) == (200, True), "even with the right password"
    assert timedelta(seconds=10) < wait_of(name) <= timedelta(seconds=15)
    let_pass(timedelta(seconds=15))
    assert sign_in(name, PASSWORD)[0] == (302 if name == "ada" else 200)


def test_one_name_s_failures_are_not_another_s(ada: User) -> None:
    for _ in range(FREE):
        sign_in("eve", "wrong")
    assert sign_in("ada", PASSWORD)[0] == 302


def test_each_wait_is_longer_up_to_the_longest_and_a_refused_attempt_adds_nothing(ada: User) -> None:
    waits = []
    for _ in range(FREE - 1):
        sign_in("ada", "wrong")
    for _ in range(9):
        sign_in("ada", "wrong")
        waits.append(round(wait_of("ada").total_seconds()))
        count = LoginFailures.objects.get().count
        sign_in("ada", "wrong")
        assert LoginFailures.objects.get().count == count
        let_pass(LONGEST_WAIT)
    assert waits == [15, 30, 60, 120, 240, 480, 900, 900, 900]


def test_a_success_forgets_the_failures(ada: User) -> None:
    for _ in range(FREE - 1):
        sign_in("ada", "wrong")
    assert sign_in("ada", PASSWORD)[0] == 302
    assert not LoginFailures.objects.exists()


def test_what_was_typed_as_a_name_is_not_stored_and_goes_after_a_day(ada: User) -> None:
    sign_in("my secret passphrase", "ada")
    assert "secret" not in str(LoginFailures.objects.values_list())
    let_pass(FORGOTTEN + timedelta(seconds=1))
    sign_in("eve", "wrong")
    assert LoginFailures.objects.count() == 1


def test_an_operator_without_a_password_cannot_sign_in() -> None:
    create_operator(NewOperator(name="bob"), None)
    assert sign_in("bob", "")[0] == 200
    assert sign_in("bob", "!")[0] == 200


def test_all_sessions_of_an_operator_can_be_ended_and_tokens_stay(ada: User) -> None:
    create_operator(NewOperator(name="bob"), PASSWORD)
    here, there, bob = OverTls(), OverTls(), OverTls()
    for browser, name in ((here, "ada"), (there, "ada"), (bob, "bob")):
        assert sign_in(name, PASSWORD, browser)[0] == 302
    token = APIClient()
    token.credentials(HTTP_AUTHORIZATION=f"Bearer {create_token(NewToken(operator='ada', name='t'))}")
    assert here.get("/admin/").status_code == there.get("/admin/").status_code == 200
    sign_out("ada")
    assert here.get("/admin/").status_code == there.get("/admin/").status_code == 302
    assert here.get("/api/v1/clients").status_code in {401, 403}
    assert bob.get("/admin/").status_code == 200
    assert token.get("/api/v1/clients", secure=True).status_code == 200
    assert sign_in("ada", PASSWORD, here)[0] == 302
    assert here.get("/admin/").status_code == 200


def test_so_can_those_of_a_superuser_from_before_there_were_roles() -> None:
    root = User.objects.create_superuser("root", password=PASSWORD)
    browser = OverTls()
    assert sign_in("root", PASSWORD, browser)[0] == 302
    assert browser.get("/admin/").status_code == 200
    sign_out(root.username)
    assert browser.get("/admin/").status_code == 302


def test_a_session_that_was_begun_otherwise_is_not_of_the_operator_s_epoch(ada: User) -> None:
    """A cookie from before the last sign-out, however it was kept."""
    old = OverTls()
    sign_in("ada", PASSWORD, old)
    for _ in range(2):
        sign_out("ada")
    assert old.get("/admin/").status_code == 302

"""The console's login: guessing takes long, and names cannot be learned."""

from __future__ import annotations

from datetime import timedelta

import pytest
from control_cast import OverTls
from django.contrib.auth.models import User
from django.db.models import F
from signing_in import PASSWORD, give_app, give_password, new_operator
from signing_in import sign_in as sign_in_whole

from control.operators.login import FORGOTTEN, FREE, LONGEST_WAIT, wait_of
from control.operators.models import LoginFailures
from control.operators.services import NewOperator, create_operator

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> User:
    return new_operator("ada")


def sign_in(name: str, password: str) -> tuple[int, str]:
    answer = give_password(OverTls(), name, password)
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


def test_a_whole_login_forgets_the_failures_and_a_password_alone_does_not(ada: User) -> None:
    app = give_app(ada)
    for _ in range(FREE - 1):
        sign_in("ada", "wrong")
    assert sign_in("ada", PASSWORD)[0] == 302
    assert LoginFailures.objects.get().count == FREE - 1
    sign_in_whole("ada", app)
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

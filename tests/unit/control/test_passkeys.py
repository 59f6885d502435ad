"""Passkeys: what an honest authenticator answers is taken, and each way to cheat is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from control_cast import OverTls
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.test import RequestFactory
from fido2.cose import ES384
from fido2.utils import websafe_encode
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from signing_in import (
    give_app,
    give_passkey,
    give_password,
    is_in,
    new_operator,
    options_on,
    post,
    sign_in,
)
from soft_authenticator import FLAG, SoftAuthenticator

from appliance.core.errors import RefusedError
from control.operators import passkeys
from control.operators.models import LoginFailures, Passkey
from control.operators.passkeys import CHALLENGE_S, LONGEST_ANSWER, MOST

pytestmark = pytest.mark.django_db
Cheat = Callable[[SoftAuthenticator], object]


def change(**facts: Any) -> Cheat:
    return lambda authenticator: authenticator.__dict__.update(facts)


OTHER_CHALLENGE = websafe_encode(b"c" * 32)
CHEATS: dict[str, Cheat] = {
    "another site": change(origin="https://evil.example"),
    "a subdomain": change(origin="https://evil.testserver"),
    "another port of the host": change(origin="https://testserver:9999"),
    "no TLS": change(origin="http://testserver"),
    "an origin that begins like ours": change(origin="https://testserver.evil.example"),
    "a frame in another site": change(cross_origin=True),
    "another relying party": change(rp_id="evil.example"),
    "another challenge": change(challenge=OTHER_CHALLENGE),
    "nobody there": change(flags=FLAG.UV),
    "somebody, who knows who": change(flags=FLAG.UP),
    "the other ceremony": change(kind="webauthn.something"),
}


@pytest.fixture
def ada() -> User:
    return new_operator("ada")


@pytest.fixture
def key(ada: User) -> SoftAuthenticator:
    return give_passkey("ada")


@pytest.fixture
def browser(key: SoftAuthenticator) -> OverTls:
    """One that has given Ada's password."""
    made = OverTls()
    give_password(made, "ada")
    return made


def log_in(browser: OverTls, authenticator: SoftAuthenticator) -> str:
    credential = authenticator.get(options_on(browser, "/login/factor/"))
    return str(post(browser, "/login/factor/", credential=credential).content.decode())


def set_up(browser: OverTls, authenticator: SoftAuthenticator, name: str = "key") -> str:
    credential = authenticator.create(options_on(browser, "/login/set-up/"))
    return str(post(browser, "/login/set-up/", credential=credential, name=name).content.decode())


def test_a_passkey_is_set_up_and_logs_in_again_and_again(browser: OverTls, key: SoftAuthenticator) -> None:
    log_in(browser, key)
    assert is_in(browser)
    row = Passkey.objects.get()
    assert (row.counter, row.rp_id) == (2, "testserver")
    assert row.used_at is not None
    again = OverTls()
    give_password(again, "ada")
    log_in(again, key)
    assert is_in(again)
    step_up = key.get(options_on(again, "/account/step-up/"))
    assert post(again, "/account/step-up/", credential=step_up)["Location"] == "/account/"


@pytest.mark.parametrize("port", ["", ":443", ":8443"])
def test_the_console_s_own_port_and_that_of_https_are_ours(ada: User, port: str) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    set_up(browser, SoftAuthenticator(origin=f"https://testserver{port}"))
    assert is_in(browser) is (port != ":443"), "no browser writes the port that goes without saying"


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_passkey_is_made_by_cheating(ada: User, cheat: str) -> None:
    browser, authenticator = OverTls(), SoftAuthenticator()
    give_password(browser, "ada")
    CHEATS[cheat](authenticator)
    assert "does not verify" in set_up(browser, authenticator)
    assert not is_in(browser)
    assert not Passkey.objects.exists()
    set_up(browser, SoftAuthenticator())  # positive control: the same browser without cheating
    assert is_in(browser)


@pytest.mark.parametrize("cheat", CHEATS)
def test_nobody_logs_in_by_cheating(browser: OverTls, key: SoftAuthenticator, cheat: str) -> None:
    honest = dict(key.__dict__)
    CHEATS[cheat](key)
    assert "does not verify" in log_in(browser, key)
    assert not is_in(browser)
    assert LoginFailures.objects.get().count == 1
    key.__dict__.update(honest)
    log_in(browser, key)
    assert is_in(browser)


def test_another_key_s_signature_is_refused(browser: OverTls, key: SoftAuthenticator) -> None:
    key.key = ec.generate_private_key(ec.SECP256R1())
    assert "does not verify" in log_in(browser, key)


def test_another_operator_s_passkey_is_refused(browser: OverTls) -> None:
    new_operator("bob")
    assert "does not verify" in log_in(browser, give_passkey("bob"))
    assert not is_in(browser)


def test_a_copy_is_found_by_its_count(browser: OverTls, key: SoftAuthenticator) -> None:
    """Of two with one key, whichever comes second has a number that came before."""
    for step in (0, -1):
        key.step = step
        assert "may have been copied" in log_in(browser, key)
        key.counter = 1
    assert not is_in(browser)
    key.step = 1
    log_in(browser, key)
    assert is_in(browser)
    key.counter, key.step = 0, 0
    other = OverTls()
    give_password(other, "ada")
    assert "may have been copied" in log_in(other, key), "nor may it stop to count"


def test_an_authenticator_that_does_not_count_is_taken(ada: User) -> None:
    authenticator = SoftAuthenticator(step=0)
    first = OverTls()
    give_password(first, "ada")
    set_up(first, authenticator)
    for _ in range(2):
        browser = OverTls()
        give_password(browser, "ada")
        log_in(browser, authenticator)
        assert is_in(browser)


def test_an_answer_serves_once_and_for_minutes(
    browser: OverTls, key: SoftAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_on(browser, "/login/factor/")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + CHALLENGE_S + 1)
    late = key.get(options)
    assert "too old" in post(browser, "/login/factor/", credential=late).content.decode()
    monkeypatch.undo()
    credential = key.get(options_on(browser, "/login/factor/"))
    assert post(browser, "/login/factor/", credential=credential).status_code == 302
    assert is_in(browser)
    assert "too old" in post(browser, "/account/step-up/", credential=credential).content.decode()
    thief = OverTls()
    give_password(thief, "ada")
    options_on(thief, "/login/factor/")
    assert "does not verify" in post(thief, "/login/factor/", credential=credential).content.decode()
    assert not is_in(thief)


def test_a_challenge_is_new_each_time(browser: OverTls) -> None:
    asked = {json.loads(options_on(browser, "/login/factor/"))["challenge"] for _ in range(3)}
    assert len(asked) == 3


def test_what_is_asked_for_demands_the_user_and_names_no_person(ada: User) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    options = json.loads(options_on(browser, "/login/set-up/"))
    assert options["rp"]["id"] == "testserver"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["authenticatorSelection"]["residentKey"] == "preferred"
    assert options["user"]["id"] not in {websafe_encode(b"ada"), websafe_encode(str(ada.pk).encode())}
    assert [kind["alg"] for kind in options["pubKeyCredParams"]] == [-8, -7, -257]


def test_a_key_of_another_kind_than_was_offered_is_refused(ada: User) -> None:
    browser = OverTls()
    give_password(browser, "ada")
    public = ES384.from_cryptography_key(ec.generate_private_key(ec.SECP384R1()).public_key())
    assert "does not verify" in set_up(browser, SoftAuthenticator(public=public))


def test_a_credential_is_known_once(key: SoftAuthenticator) -> None:
    new_operator("bob")
    browser = OverTls()
    give_password(browser, "bob")
    assert "known already" in set_up(browser, key)
    assert not is_in(browser)


@pytest.mark.parametrize(("name", "word"), [("key", "of this name"), ("A b", "hyphens"), ("", "hyphens")])
def test_a_name_is_one_s_own_and_of_the_usual_form(key: SoftAuthenticator, name: str, word: str) -> None:
    browser = OverTls()
    browser.force_login(User.objects.get(username="ada"))
    credential = SoftAuthenticator().create(options_on(browser, "/account/add-factor/"))
    page = post(browser, "/account/add-factor/", credential=credential, name=name).content.decode()
    assert word in page
    assert Passkey.objects.count() == 1


def test_an_operator_has_so_many_and_no_more(key: SoftAuthenticator) -> None:
    browser = OverTls()
    browser.force_login(User.objects.get(username="ada"))
    for number in range(MOST):
        asked = options_on(browser, "/account/add-factor/")
        assert len(json.loads(asked)["excludeCredentials"]) == number + 1
        form = {"credential": SoftAuthenticator().create(asked), "name": f"another-{number}"}
        done = post(browser, "/account/add-factor/", **form).status_code == 302
        assert done is (number < MOST - 1)
    assert Passkey.objects.count() == MOST


def test_passkeys_need_a_name_and_are_offered_under_no_other(
    key: SoftAuthenticator, settings: Any, ada: User
) -> None:
    settings.ALLOWED_HOSTS = ["testserver", "other.example", "10.0.0.1", "[fd00::1]"]
    app = give_app(ada)
    for host in ("other.example", "10.0.0.1", "[fd00::1]"):
        browser = OverTls(headers={"host": host})
        give_password(browser, "ada")
        page = browser.get("/login/factor/").content.decode()
        assert "data-options" not in page
        credential = key.get(json.dumps({"challenge": OTHER_CHALLENGE}))
        assert "too old" in post(browser, "/login/factor/", credential=credential).content.decode()
    sign_in("ada", app, browser)
    page = browser.get("/account/add-factor/").content.decode()
    assert "Open the console by its name" in page


# What is no answer at all.

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
_PATHS = [
    ("id",),
    ("rawId",),
    ("type",),
    ("response",),
    ("response", "clientDataJSON"),
    ("response", "attestationObject"),
    ("response", "authenticatorData"),
    ("response", "signature"),
    (),
]
_UNREAD = {
    "create": [("type",), ("response", "authenticatorData"), ("response", "signature")],
    "get": [("type",), ("response", "attestationObject")],
}


@pytest.mark.parametrize("ceremony", ["create", "get"])
@hypothesis_settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(_PATHS), value=_JSON, raw=st.binary(max_size=200))
def test_a_malformed_answer_is_refused_and_nothing_else(
    key: SoftAuthenticator, ceremony: str, path: tuple[str, ...], value: Any, raw: bytes
) -> None:
    user = User.objects.get(username="ada")
    request = RequestFactory().get("/", secure=True)
    request.session = {}  # type: ignore[assignment]
    ask = passkeys.propose_passkey if ceremony == "create" else passkeys.ask_for_passkey
    options = ask(request, user)
    assert options
    authenticator = SoftAuthenticator() if ceremony == "create" else key
    answer = json.loads(getattr(authenticator, ceremony)(options))
    replaced: Any = websafe_encode(raw) if value is None else value
    if not path:
        answer = replaced
    elif len(path) == 1:
        answer[path[0]] = replaced
    else:
        answer[path[0]][path[1]] = replaced
    with suppress(RefusedError):  # any other exception fails
        if ceremony == "create":
            passkeys.add_passkey(request, user, "another", json.dumps(answer))
        else:
            passkeys.verify_assertion(request, user, json.dumps(answer))
        assert path in _UNREAD[ceremony], "what is read must be right"


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 10_000, "null", "x" * (LONGEST_ANSWER + 1), '{"rawId": "\\ud800"}']
)
def test_so_is_what_is_no_json(browser: OverTls, text: str) -> None:
    options_on(browser, "/login/factor/")
    answer = post(browser, "/login/factor/", credential=text)
    assert answer.status_code == 200
    assert 'role="alert"' in answer.content.decode()

"""What an operator does to come in: a form with a password, then one with a second factor."""

from __future__ import annotations

import html
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from control_cast import OverTls
from django.contrib.auth.models import User
from soft_authenticator import SoftAuthenticator

from control.operators import totp
from control.operators.factors import CODES, add_app, new_recovery_codes, propose_app, show_app
from control.operators.models import AppSecret
from control.operators.roles import Role
from control.operators.services import NewOperator, create_operator

PASSWORD = "correct horse battery"
FORM = "application/x-www-form-urlencoded"


@dataclass
class App:
    """An operator's authenticator app."""

    secret: bytes

    def code(self, steps: int = 0) -> str:
        """What it shows now, or so many steps of half a minute from now."""
        return totp.code_of(self.secret, totp.step_at(time.time()) + steps)


def new_operator(name: str, role: Role = Role.VIEWER) -> User:
    """An operator who has never logged in."""
    return create_operator(NewOperator(name=name, role=role), PASSWORD)


def give_app(user: User) -> App:
    """Set an app up for an operator, none of whose codes was used."""
    sealed = propose_app(user)
    app = App(show_app(user, sealed))
    add_app(user, sealed, app.code())
    AppSecret.objects.filter(user=user).update(last_step=0)
    return app


def give_codes(user: User) -> list[str]:
    """Give an operator recovery codes."""
    codes = new_recovery_codes(user)
    assert len(set(codes)) == CODES
    return codes


def post(browser: OverTls, path: str, **form: str) -> Any:
    """Send a form."""
    return browser.generic("POST", path, urlencode(form), FORM)


def give_password(browser: OverTls, name: str, password: str = PASSWORD, **form: str) -> Any:
    """Send name and password."""
    return post(browser, "/login/", username=name, password=password, **form)


def sign_in(name: str, app: App, browser: OverTls | None = None, steps: int = 0) -> OverTls:
    """Log in with password and app."""
    made = browser or OverTls()
    assert give_password(made, name).status_code == 302
    answer = post(made, "/login/factor/", code=app.code(steps))
    assert (answer.status_code, answer["Location"]) == (302, "/")
    return made


def options_on(browser: OverTls, path: str) -> str:
    """What a page asks the browser for a passkey, as JSON."""
    found = re.search(r'data-options="([^"]*)"', browser.get(path).content.decode())
    assert found, "the page asks for no passkey"
    return html.unescape(found[1])


def give_passkey(name: str) -> SoftAuthenticator:
    """Set a passkey up for an operator, who has no factor yet, by the pages of the first login."""
    browser, authenticator = OverTls(), SoftAuthenticator()
    give_password(browser, name)
    credential = authenticator.create(options_on(browser, "/login/set-up/"))
    answer = post(browser, "/login/set-up/", credential=credential, name="key")
    assert "Recovery codes" in answer.content.decode()
    return authenticator


def is_in(browser: OverTls) -> bool:
    """Whether a browser is logged in, as a page of the console sees it."""
    return bool(browser.get("/account/").status_code == 200)


def random_code() -> str:
    """A recovery code that is nobody's."""
    return secrets.token_hex(8)

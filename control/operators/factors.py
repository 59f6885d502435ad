"""An operator's second factors: an authenticator app, passkeys, recovery codes. Whoever has none of the first two must set one up.

A factor is verified in one place, `verify_answer`, whoever asks for it: the login or a page that wants it anew. There the attempts are counted.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from base64 import b32encode
from enum import StrEnum
from typing import Final

from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest

from appliance.core.errors import RefusedError
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.operators import passkeys, totp
from control.operators.login import note_failure, told_to_wait
from control.operators.models import AppSecret, Passkey, RecoveryCode
from control.operators.sealing import open_secret, seal_secret

CODES: Final = 10
CODE_BYTES: Final = 10  # 80 random bits, so a plain digest tells nothing
_GROUP: Final = 4  # characters of a recovery code between two hyphens
_LONGEST_CODE: Final = 64  # characters; longer is nobody's


class Kind(StrEnum):
    """What somebody proved to have."""

    APP = "authenticator app"
    PASSKEY = "passkey"
    RECOVERY = "recovery code"


def has_factor(user: User) -> bool:
    """Return whether an operator has set up a factor. Recovery codes are none: they come with one."""
    return AppSecret.objects.filter(user=user).exists() or Passkey.objects.filter(user=user).exists()


def verify_answer(request: HttpRequest, user: User) -> Kind:
    """Verify what an operator answered when asked for a second factor: `credential` or `code` of a form.

    Raises:
        RefusedError: If it is wrong or was used before, or too many were. Each refusal counts (`login`).
    """
    name = user.get_username()
    if told := told_to_wait(name):
        raise RefusedError(told)
    try:
        if credential := request.POST.get("credential", ""):
            passkeys.verify_assertion(request, user, credential)
            return Kind.PASSKEY
        return _verify_code(user, request.POST.get("code", ""))
    except RefusedError:
        note_failure(name)
        raise


def _verify_code(user: User, typed: str) -> Kind:
    code = "".join(typed[:_LONGEST_CODE].split()).replace("-", "").lower()
    if len(code) == totp.DIGITS:
        _take_app_code(user, code)
        return Kind.APP
    if not RecoveryCode.objects.filter(user=user, sha256=_digest(code)).delete()[0]:
        raise RefusedError("This code is wrong or was used before.")
    return Kind.RECOVERY


def _take_app_code(user: User, code: str) -> None:
    app = AppSecret.objects.filter(user=user).first()
    step = None
    if app is not None:
        secret = open_secret(app.sealed, _context(user))
        step = totp.matching_step(secret, code, time.time(), after=app.last_step)
    # Of two requests with the same code one changes the row; the other finds it changed.
    if step is None or not AppSecret.objects.filter(user=user, last_step__lt=step).update(last_step=step):
        raise RefusedError("This code is wrong or was used before. Wait for the next one.")


def propose_app(user: User) -> str:
    """Return a new secret for an app, sealed: it waits in a session, and those are rows of the database."""
    return seal_secret(secrets.token_bytes(totp.SECRET_BYTES), _context(user))


def show_app(user: User, sealed: str) -> bytes:
    """Return the secret of a proposal. Raises RefusedError if it is not the user's."""
    return open_secret(sealed, _context(user))


def add_app(user: User, sealed: str, typed: str) -> None:
    """Make a proposal the secret of the operator's app, in place of the one before, once the app's code shows that it has it.

    Raises:
        RefusedError: If the code is not the app's.
    """
    code = "".join(typed[:_LONGEST_CODE].split())
    step = totp.matching_step(show_app(user, sealed), code, time.time(), after=0)
    if step is None:
        raise RefusedError("This code is not what the app shows now. Is the device's clock right?")
    with transaction.atomic():
        before = AppSecret.objects.filter(user=user).count()
        AppSecret.objects.update_or_create(user=user, defaults={"sealed": sealed, "last_step": step})
        record(Verb.OPERATOR_ADD_FACTOR, user.get_username(), {"apps": (before, 1)})


def lock_first(user: User) -> None:
    """Within a transaction, keep two logins from each setting up a first factor.

    Raises:
        RefusedError: If the operator has one by now.
    """
    User.objects.select_for_update().get(pk=user.pk)
    if has_factor(user):
        raise RefusedError("A second factor was set up meanwhile.", hint="Log in with it.")


def remove_app(user: User) -> None:
    """Forget the operator's app. Raises RefusedError if there would be no factor left."""
    with transaction.atomic():
        _lock_spare(user)
        gone, _ = AppSecret.objects.filter(user=user).delete()
        record(Verb.OPERATOR_REMOVE_FACTOR, user.get_username(), {"apps": (gone, 0)})


def remove_passkey(user: User, key: int) -> None:
    """Forget a passkey of the operator's. Raises RefusedError if there would be no factor left."""
    with transaction.atomic():
        _lock_spare(user)
        before = Passkey.objects.filter(user=user).count()
        gone, _ = Passkey.objects.filter(user=user, pk=key).delete()
        record(Verb.OPERATOR_REMOVE_FACTOR, user.get_username(), {"passkeys": (before, before - gone)})


def _lock_spare(user: User) -> None:
    User.objects.select_for_update().get(pk=user.pk)
    if AppSecret.objects.filter(user=user).count() + Passkey.objects.filter(user=user).count() < 2:
        raise RefusedError("This is the last second factor.", hint="Set up another one first.")


def new_recovery_codes(user: User) -> list[str]:
    """Return new recovery codes, which exist nowhere else; those before are over."""
    codes = [b32encode(secrets.token_bytes(CODE_BYTES)).decode("ascii").lower() for _ in range(CODES)]
    with transaction.atomic():
        before, _ = RecoveryCode.objects.filter(user=user).delete()
        RecoveryCode.objects.bulk_create(RecoveryCode(user=user, sha256=_digest(code)) for code in codes)
        record(Verb.OPERATOR_NEW_CODES, user.get_username(), {"recovery_codes": (before, CODES)})
    return ["-".join(code[at : at + _GROUP] for at in range(0, len(code), _GROUP)) for code in codes]


def factor_facts(user: User) -> dict[str, int]:
    """Return how many factors of each kind an operator has, as the journal names them."""
    models = {"apps": AppSecret, "passkeys": Passkey, "recovery_codes": RecoveryCode}
    return {fact: model._default_manager.filter(user=user).count() for fact, model in models.items()}


def forget_factors(user: User) -> None:
    """Forget everything that an operator could answer with."""
    for model in (AppSecret, Passkey, RecoveryCode):
        model._default_manager.filter(user=user).delete()


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()


def _context(user: User) -> str:
    return f"operators/app/{user.pk}"

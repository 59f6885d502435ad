"""Who has given a password and no second factor yet: nobody, with a name noted in the session.

Django's own login comes after the factor, so whatever asks who the user is hears "nobody" until then, without having to know of factors.
"""

from __future__ import annotations

import time
from typing import Final

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

LASTS_S: Final = 600
_PENDING: Final = "pending"


def begin_pending(request: HttpRequest, user: User, then: str) -> None:
    """Note who gave a password, in a new session: nothing of what was in the one before, nor its key, is kept.

    Args:
        then: Path to go to when the factor is verified.
    """
    request.session.flush()
    request.session[_PENDING] = {
        "user": user.pk,
        "password": user.get_session_auth_hash(),
        "at": int(time.time()),
        "then": then,
    }


def pending_user(request: HttpRequest) -> User | None:
    """Return who gave a password in the last minutes; None if nobody did, or the password or the operator is no longer good."""
    noted = request.session.get(_PENDING)
    if noted is None or time.time() - noted["at"] > LASTS_S:
        return None
    user = User.objects.filter(pk=noted["user"], is_active=True).first()
    if user is None or not constant_time_compare(noted["password"], user.get_session_auth_hash()):
        return None
    return user


def end_pending(request: HttpRequest) -> str:
    """Forget who gave a password, and return where to go."""
    return str(request.session.pop(_PENDING)["then"])

"""The console's login: attempts are counted by name, and sessions of an operator can all be ended.

Who fails too often waits, each time longer, whether there is an operator of that name or not: nothing can be learned about names. What was
typed as a name is not stored, since people type their password there; only a keyed digest of it is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac

from control.journal.logins import record_failure
from control.operators.models import LoginFailures, Operator
from control.operators.roles import role_of

FREE: Final = 5  # failures without a wait
FIRST_WAIT: Final = timedelta(seconds=15)
LONGEST_WAIT: Final = timedelta(minutes=15)
FORGOTTEN: Final = timedelta(days=1)
_EPOCH: Final = "epoch"


def wait_of(name: str) -> timedelta:
    """Return how long nobody may try this name; zero if somebody may now."""
    found = LoginFailures.objects.filter(name=_digest(name)).first()
    if found is None or found.count < FREE:
        return timedelta()
    return max(timedelta(), _until(found) - timezone.now())


def _until(failures: LoginFailures) -> datetime:
    wait: timedelta = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(int(failures.count) - FREE, 10))
    last: datetime = failures.last_at
    return last + wait


def note_failure(name: str) -> None:
    """Count a failure, and forget those of yesterday."""
    digest = _digest(name)
    with transaction.atomic():
        LoginFailures.objects.filter(last_at__lt=timezone.now() - FORGOTTEN).delete()
        LoginFailures.objects.get_or_create(name=digest, defaults={"last_at": timezone.now()})
        LoginFailures.objects.filter(name=digest).update(count=F("count") + 1, last_at=timezone.now())
        record_failure(name, locked=bool(wait_of(name)))


def note_success(name: str) -> None:
    """Forget the failures of a name."""
    LoginFailures.objects.filter(name=_digest(name)).delete()


def _digest(name: str) -> str:
    return salted_hmac("control.operators.login", name, algorithm="sha256").hexdigest()


class LoginForm(AdminAuthenticationForm):
    """Django's form, that says how long to wait."""

    def get_invalid_login_error(self) -> ValidationError:
        """Return what the form shows."""
        wait = wait_of(str(self.cleaned_data.get("username", "")))
        if not wait:
            return super().get_invalid_login_error()
        seconds = int(wait.total_seconds()) + 1
        return ValidationError(f"Too many attempts. Try again in {seconds} s.", code="wait")


def end_sessions(user: User) -> int:
    """End all sessions of an operator: with its next request each is signed out. Return the epoch of those that begin now."""
    Operator.objects.get_or_create(
        user=user, defaults={"role": role_of(user) or ""}
    )  # older users have no row
    Operator.objects.filter(user=user).update(session_epoch=F("session_epoch") + 1)
    return int(Operator.objects.get(user=user).session_epoch)


def _begin(request: HttpRequest, user: User, **_: Any) -> None:
    request.session[_EPOCH] = _epoch_of(user)


user_logged_in.connect(_begin, dispatch_uid="control.operators.login")


def _epoch_of(user: User) -> int:
    operator = getattr(user, "operator", None)
    return 0 if operator is None else int(operator.session_epoch)


class EndedSessions:
    """Middleware: signs out whose sessions were ended."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Leave it to `process_view`."""
        return self._get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """Look before the view sees the user. Style sheets are everybody's, and cost no look into the database."""
        if request.path.startswith(settings.STATIC_URL):
            return
        user = request.user
        if isinstance(user, User) and request.session.get(_EPOCH, 0) != _epoch_of(user):
            logout(request)

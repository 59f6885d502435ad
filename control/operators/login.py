"""The console's login: attempts at passwords and second factors are counted together, by name.

Who fails too often waits, each time longer, whether there is an operator of that name or not: nothing can be learned about names. What was
typed as a name is not stored, since people type their password there; only a keyed digest of it is. A right password alone forgets no
failures: else who has one could try codes without end.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac

from control.journal.logins import record_failure
from control.operators.models import LoginFailures

FREE: Final = 5  # failures without a wait
FIRST_WAIT: Final = timedelta(seconds=15)
LONGEST_WAIT: Final = timedelta(minutes=15)
FORGOTTEN: Final = timedelta(days=1)


def wait_of(name: str) -> timedelta:
    """Return how long nobody may try this name; zero if somebody may now."""
    found = LoginFailures.objects.filter(name=_digest(name)).first()
    if found is None or found.count < FREE:
        return timedelta()
    return max(timedelta(), _until(found) - timezone.now())


def told_to_wait(name: str) -> str:
    """Return the sentence for who must wait; empty for who need not."""
    wait = wait_of(name)
    return f"Too many attempts. Try again in {int(wait.total_seconds()) + 1} s." if wait else ""


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
    """Forget the failures of a name, whose second factor was right."""
    LoginFailures.objects.filter(name=_digest(name)).delete()


def _digest(name: str) -> str:
    return salted_hmac("control.operators.login", name, algorithm="sha256").hexdigest()


class LoginForm(AdminAuthenticationForm):
    """Django's form, that says how long to wait."""

    def get_invalid_login_error(self) -> ValidationError:
        """Return what the form shows."""
        told = told_to_wait(str(self.cleaned_data.get("username", "")))
        return ValidationError(told, code="wait") if told else super().get_invalid_login_error()

"""Logins to the console, as events.

A failure is recorded in the same way whether the name is somebody's or not, up to so many an hour whoever's: else the time that it takes
would tell names, and anybody on the management network could fill the disk. What was typed as a name is recorded only where it is an
operator's, since people type their password there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone

from appliance.core.receipt import timestamp
from control.journal.actors import NOBODY, acting, request_id
from control.journal.event import Source
from control.journal.middleware import operator_actor
from control.journal.models import AuditEvent
from control.journal.services import record
from control.journal.vocabulary import Verb

MOST_FAILURES: Final = 100  # that are recorded within `_HOUR`; so many are an alarm by themselves
_HOUR: Final = timedelta(hours=1)


def record_failure(name: str, *, locked: bool) -> None:
    """Record that somebody failed to log in, in the transaction that counts it.

    Args:
        name: What was typed.
        locked: Nobody may try it for a while now.
    """
    verb = Verb.LOGIN_LOCKED if locked else Verb.LOGIN_FAILED
    known = User.objects.filter(username=name).exists()
    since = timestamp(timezone.now() - _HOUR)
    failures = AuditEvent.objects.filter(verb__in=(Verb.LOGIN_FAILED, Verb.LOGIN_LOCKED), at__gte=since)
    if failures.order_by()[:MOST_FAILURES].count() < MOST_FAILURES:
        with acting(Source.CONSOLE, NOBODY, request=request_id()):
            record(verb, name if known else "")


@receiver(user_logged_in, dispatch_uid="control.journal.logins")
def _record_success(user: User, **_: Any) -> None:
    with acting(Source.CONSOLE, operator_actor(user), request=request_id()), transaction.atomic():
        record(Verb.LOGIN_OK, user.get_username())


@receiver(user_logged_out, dispatch_uid="control.journal.logins.end")
def _record_end(user: User | None, **_: Any) -> None:
    """Record it before the session is gone, and who it was with it. Who was not signed in ends nothing."""
    if isinstance(user, User):
        with acting(Source.CONSOLE, operator_actor(user), request=request_id()), transaction.atomic():
            record(Verb.LOGIN_ENDED, user.get_username())

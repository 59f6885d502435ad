"""The console's sessions: Django's, in rows of our own that say whose they are, so each can be listed and ended.

There is no session of an operator without a verified second factor. Whoever has only given a password is nobody yet (`pending`), and a
session that came about in another way is ended before any page sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY, login, logout
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac

from control.journal.services import record
from control.journal.vocabulary import Verb
from control.operators.browsers import describe_browser
from control.operators.factors import Kind
from control.operators.login import note_success
from control.operators.models import OperatorSession

MOST: Final = 20  # sessions of one operator; one more ends the oldest
SEEN_EVERY_S: Final = 300  # how exactly a session knows when it was last used: a write each time
_FACTOR, _BEGAN, _SEEN = "factor", "began", "seen_at"


class SessionStore(DatabaseStore):
    """Django's sessions in the database, in our rows."""

    @classmethod
    def get_model_class(cls) -> type[OperatorSession]:
        """Return the rows' model."""
        return OperatorSession

    def create_model_instance(self, data: dict[str, Any]) -> OperatorSession:
        """Return the row of a session. One of an operator ends when its time is over, however much it is used."""
        row = cast("OperatorSession", super().create_model_instance(data))
        row.user_id = data.get(SESSION_KEY)
        if _BEGAN in data:
            age = timedelta(seconds=settings.SESSION_COOKIE_AGE)
            row.expire_date = min(row.expire_date, _instant(data[_BEGAN]["at"]) + age)
        return row


@dataclass(frozen=True)
class SessionFacts:
    """What an operator sees of a session.

    Attributes:
        handle: Names it in a form; says nothing of the cookie.
        began_at, seen_at: When it began and was last used, the latter to some minutes.
        address: Where it was begun from.
        browser: What it was begun with, of a closed set of words.
        factor: The second factor that was verified last.
        current: Whether it is the one that asks.
    """

    handle: str
    began_at: datetime
    seen_at: datetime
    address: str
    browser: str
    factor: str
    current: bool


def begin_session(request: HttpRequest, user: User, kind: Kind) -> None:
    """Sign an operator in, whose second factor was just verified, under a new session key."""
    login(request, user)  # cycles the key: a cookie that somebody else planted is worth nothing
    note_success(user.get_username())
    address, agent = request.META.get("REMOTE_ADDR", ""), request.headers.get("User-Agent", "")
    note_beginning(request.session, address, describe_browser(agent))
    note_factor(request.session, kind)
    _make_room(user)


def note_beginning(session: SessionBase, address: str, browser: str) -> None:
    """Write into a session when, where and with what it began."""
    now = int(time.time())
    session[_BEGAN] = {"at": now, "address": address, "browser": browser}
    session[_SEEN] = now


def note_factor(session: SessionBase, kind: Kind) -> None:
    """Write into a session that a second factor was verified now."""
    session[_FACTOR] = {"kind": kind.value, "at": int(time.time())}


def is_verified(session: SessionBase) -> bool:
    """Return whether a second factor was verified in a session."""
    return _FACTOR in session


def factor_age(session: SessionBase) -> timedelta:
    """Return how long ago; for a session without, longer than anybody waits."""
    return timedelta(seconds=time.time() - session[_FACTOR]["at"]) if is_verified(session) else timedelta.max


def list_sessions(request: HttpRequest) -> list[SessionFacts]:
    """Return the sessions of the operator who asks, the newest first. One query."""
    current = str(request.session.session_key)
    facts = [
        _facts(row, data, current)
        for row in _living(request.user.pk)
        if _BEGAN in (data := row.get_decoded())
    ]
    return sorted(facts, key=lambda session: session.began_at, reverse=True)


def end_session(request: HttpRequest, handle: str) -> bool:
    """End one's session of this handle; return whether there was one."""
    rows = [row for row in _living(request.user.pk) if _handle_of(row.session_key) == handle]
    with transaction.atomic():
        if rows and rows[0].session_key == request.session.session_key:
            logout(request)
            return True
        return bool(_end_own(request, OperatorSession.objects.filter(pk__in=[row.pk for row in rows])))


def end_other_sessions(request: HttpRequest) -> int:
    """End all sessions of the operator who asks but this one; return how many."""
    rows = OperatorSession.objects.filter(user=request.user.pk).exclude(pk=request.session.session_key)
    with transaction.atomic():
        return _end_own(request, rows)


def _end_own(request: HttpRequest, rows: QuerySet[OperatorSession]) -> int:
    before = OperatorSession.objects.filter(user=request.user.pk).count()
    ended, _ = rows.delete()
    if ended:
        name = request.user.get_username()
        record(Verb.OPERATOR_END_SESSIONS, name, {"sessions": (before, before - ended)})
    return ended


def end_sessions(user: User) -> int:
    """End all sessions of an operator: the next request of each is nobody's. Return how many there were."""
    return OperatorSession.objects.filter(user=user).delete()[0]


def _make_room(user: User) -> None:
    OperatorSession.objects.filter(expire_date__lt=timezone.now()).delete()
    oldest_last = _living(user.pk).order_by("-expire_date").values_list("pk", flat=True)
    OperatorSession.objects.filter(pk__in=list(oldest_last[MOST - 1 :])).delete()


def _living(user_id: int | None) -> QuerySet[OperatorSession]:
    return OperatorSession.objects.filter(user=user_id, expire_date__gt=timezone.now())


def _facts(row: OperatorSession, data: dict[str, Any], current: str) -> SessionFacts:
    began = data[_BEGAN]
    return SessionFacts(
        handle=_handle_of(row.session_key),
        began_at=_instant(began["at"]),
        seen_at=_instant(data[_SEEN]),
        address=began["address"],
        browser=began["browser"],
        factor=data[_FACTOR]["kind"],
        current=row.session_key == current,
    )


def _handle_of(session_key: str) -> str:
    return salted_hmac("control.operators.sessions", session_key, algorithm="sha256").hexdigest()[:32]


def _instant(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


class VerifiedSessions:
    """Middleware: signs out who is signed in without a verified second factor, and notes when a session was used."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Leave it to `process_view`."""
        return self._get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> None:
        """Look before the view sees the user. Style sheets are everybody's, and cost no look into the database."""
        if request.path.startswith(settings.STATIC_URL) or SESSION_KEY not in request.session:
            return
        if not is_verified(request.session):
            logout(request)
        elif time.time() - request.session.get(_SEEN, 0) > SEEN_EVERY_S:
            request.session[_SEEN] = int(time.time())

"""Says who acts in a request of the console or the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse

from appliance.core.names import random_id
from control.journal.actors import acting
from control.journal.event import Actor, ActorKind, Source
from control.operators.models import ApiToken

HEADER: Final = "X-Request-Id"


class RequestActor:
    """Middleware, behind the one that knows the user. The answer names the id under which events of the request are found."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer on behalf of whoever asks."""
        source = Source.API if request.path.startswith("/api/") else Source.CONSOLE
        name = random_id()
        with acting(source, lambda: _actor_of(request), request=name):
            response = self._get_response(request)
        response[HEADER] = name
        return response


def operator_actor(user: User, token: str | None = None) -> Actor:
    """Return an operator, with the token that it used."""
    return Actor(kind=ActorKind.OPERATOR, name=user.get_username(), token=token)


def _actor_of(request: HttpRequest) -> Actor | None:
    """Return who asks; None for somebody who is not signed in. Django REST framework notes what it found out on Django's request."""
    if not isinstance(request.user, User):
        return None
    token = getattr(request, "auth", None)
    return operator_actor(request.user, token.name if isinstance(token, ApiToken) else None)

"""Asks for the second factor anew before what is dangerous: a session left open, or stolen, does not suffice for it.

    @fresh_factor_required
    def revoke(request): ...

A page that asks is worth more than a form that is refused: put it on the page that shows the form too, so that a POST rarely meets a factor
that went stale. Tokens have no session and are not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

FRESH: Final = timedelta(minutes=5)
View = Callable[..., HttpResponseBase]


def has_fresh_factor(request: HttpRequest) -> bool:
    """Return whether the second factor of this session was verified within the last minutes."""
    from control.operators.sessions import factor_age  # which needs the models; this is imported before them

    return request.user.is_authenticated and factor_age(request.session) <= FRESH


def fresh_factor_required(view: View) -> View:
    """Let a view be reached only with a fresh factor; else ask for it and come back. What a form held has to be sent again."""

    @wraps(view)
    def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        return view(request, *args, **kwargs) if has_fresh_factor(request) else step_up(request)

    return asking


def step_up(request: HttpRequest) -> HttpResponseRedirect:
    """Go and ask for the second factor, then come back to this path, by GET."""
    return HttpResponseRedirect(f"{reverse('step-up')}?{urlencode({'next': request.get_full_path()})}")


def safe_next(request: HttpRequest, otherwise: str) -> str:
    """Return where a request says to go next, if that is on this host."""
    wanted = request.POST.get("next") or request.GET.get("next", "")
    good = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if good else otherwise

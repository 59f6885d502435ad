"""Light or dark: as the operator's system says, unless the operator said otherwise in this browser."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from control.console.pages import page

COOKIE: Final = "__Host-theme"
THEMES: Final = ("light", "dark")
_LIFETIME_S: Final = 365 * 86_400


def theme_of(request: HttpRequest) -> str:
    """Return the theme that was chosen; an empty text for that of the system."""
    theme = request.COOKIES.get(COOKIE, "")
    return theme if theme in THEMES else ""


@page(None, posts=True)
def choose_theme(request: HttpRequest) -> HttpResponse:
    """Remember a theme, or forget it, and go back to where the operator was."""
    back = request.POST.get("back", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts=None) or not back.startswith("/"):
        back = reverse("console:overview")
    answer = HttpResponseRedirect(back)
    if request.method == "POST":
        if (theme := request.POST.get("theme", "")) in THEMES:
            answer.set_cookie(
                COOKIE, theme, max_age=_LIFETIME_S, secure=True, httponly=True, samesite="Strict"
            )
        else:
            answer.delete_cookie(COOKIE, samesite="Strict")
    return answer

"""What the layout of every page needs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from control.console.navigation import navigation_for
from control.console.theme import theme_of
from control.operators.roles import role_of


def layout(request: HttpRequest) -> dict[str, Any]:
    """Return the theme, who is signed in, and where that operator may go."""
    user = getattr(request, "user", None)
    role = role_of(user) if user is not None else None
    return {
        "theme": theme_of(request),
        "role": role.value if role else "",
        "navigation": navigation_for(role, request.path),
    }

"""Who may call what: the rights of the operator's role, and of the token's where that is less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rest_framework.permissions import BasePermission

from control.operators.models import ApiToken
from control.operators.roles import known, may, role_of

if TYPE_CHECKING:  # rest_framework.views imports this while it is imported itself
    from rest_framework.request import Request
    from rest_framework.views import APIView

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class RolePermission(BasePermission):
    """Asks for `view_`, `add_` or `change_` of what a view is about: its queryset's model, or the right in its `right`."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the operator may, and the token that the request came with."""
        right = needed_right_of(view, str(request.method), getattr(view, "action", None))
        roles = [role_of(request.user)]
        if isinstance(request.auth, ApiToken) and request.auth.role:
            roles.append(known(request.auth.role))
        return all(may(role, right) for role in roles)


def needed_right_of(view: APIView | type[APIView], method: str, action: str | None) -> str:
    """Return the right that a request needs. A view that says nothing can be reached by nobody but administrators."""
    model: Any = getattr(getattr(view, "queryset", None), "model", None)
    if model is None:
        return str(getattr(view, "right", ""))
    changes = "add" if action == "create" else "change"
    verb = "view" if method in _READS else changes
    return f"{model._meta.app_label}.{verb}_{model._meta.model_name}"

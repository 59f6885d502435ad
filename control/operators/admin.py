"""Operators and API tokens in the admin: shown, tokens without their digests, and tokens deleted to revoke them.

Django's own pages for users and groups are gone: what they grant is not read (`roles`). Operators are made on the management machine.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest

from control.operators.models import ApiToken, Operator
from control.operators.services import revoke_token
from control.readonly import ReadOnlyAdmin

admin.site.unregister([Group, User])


@admin.register(Operator)
class OperatorAdmin(ReadOnlyAdmin):
    """Operators and their roles."""

    list_display = ("user", "role", "active", "last_login")
    list_select_related = ("user",)
    fields = ("user", "role", "active", "last_login")

    @admin.display(boolean=True)
    def active(self, operator: Operator) -> bool:
        """Whether the operator may come in."""
        return operator.user.is_active

    @admin.display
    def last_login(self, operator: Operator) -> Any:
        """When the operator last signed in to the console."""
        return operator.user.last_login


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """API tokens."""

    list_display = ("name", "operator", "role", "networks", "created_at", "expires_at")
    fields = list_display

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """A deleted token is a revoked one."""
        return request.user.has_perm("operators.delete_apitoken")

    def delete_model(self, request: HttpRequest, obj: Any) -> None:  # noqa: ARG002
        """Revoke it."""
        revoke_token(obj.operator.get_username(), obj.name)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Revoke each."""
        for token in queryset.select_related("operator"):
            self.delete_model(request, token)

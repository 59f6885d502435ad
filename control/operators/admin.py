"""API tokens in the admin: shown without their digests, and deleted to revoke them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from control.operators.models import ApiToken
from control.readonly import ReadOnlyAdmin


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """API tokens."""

    list_display = ("name", "operator", "created_at", "expires_at")
    fields = ("name", "operator", "created_at", "expires_at")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """A deleted token is a revoked one."""
        return True

"""Clients and devices in the admin: shown, and changed by the services' verbs only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from appliance.core.errors import RefusedError
from control.clients.models import Client, Device
from control.clients.services import resume_client, revoke_client, revoke_device, suspend_client
from control.readonly import ReadOnlyAdmin


def _apply(request: HttpRequest, rows: QuerySet[Any], verb: Callable[[Any], None], done: str) -> None:
    """Call a service for each row that was ticked, and say what came of it."""
    changed = 0
    for row in rows:
        try:
            verb(row)
            changed += 1
        except RefusedError as refused:
            messages.error(request, f"{row}: {refused.message}")
    messages.success(request, f"{changed} {done}")


@admin.register(Client)
class ClientAdmin(ReadOnlyAdmin):
    """Clients: suspend, resume, revoke."""

    list_display = ("name", "state", "home", "created_at")
    list_filter = ("state", "home")
    search_fields = ("name",)
    fields = ("name", "state", "home", "allowed_models", "limits", "created_at")
    actions = ("suspend", "resume", "revoke")

    @admin.action(description="Suspend the chosen clients")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        """Cut them off until they are resumed."""
        _apply(request, queryset, suspend_client, "suspended")

    @admin.action(description="Resume the chosen clients")
    def resume(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        """Serve them again."""
        _apply(request, queryset, resume_client, "resumed")

    @admin.action(description="Revoke the chosen clients for good")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        """Cut them off for good."""
        _apply(request, queryset, revoke_client, "revoked")


@admin.register(Device)
class DeviceAdmin(ReadOnlyAdmin):
    """Devices: revoke. They are added by the API or the command line, which show their configuration once."""

    list_display = ("name", "client", "state", "public_key", "index", "created_at")
    list_filter = ("state",)
    search_fields = ("name", "client__name", "public_key")
    fields = ("client", "name", "state", "public_key", "index", "created_at", "revoked_at")
    actions = ("revoke",)

    @admin.action(description="Revoke the chosen devices for good")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        """Cut them off for good."""
        _apply(request, queryset, revoke_device, "revoked")

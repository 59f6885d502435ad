"""Clients and devices in the admin: shown, and changed by the services' verbs only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from appliance.core.errors import RefusedError
from control.clients.forms import ClientForm, DeviceForm
from control.clients.invitations import approve_invitation, cancel_invitation
from control.clients.models import Client, Device, Invitation
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


class Adding(ReadOnlyAdmin):
    """Adds rows by a form of ours that calls a service; nothing else is written."""

    add_form: ClassVar[type[ClientForm | DeviceForm]]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever Django lets add rows of this kind."""
        return admin.ModelAdmin.has_add_permission(self, request)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:  # noqa: ARG002
        """Show the form; on success the list, or the configuration that is shown once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = self.add_form(request.POST or None)
        made = form.save() if form.is_valid() else None
        back = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        context = {**self.admin_site.each_context(request), "opts": self.opts, "back": back}
        title = f"Add {self.opts.verbose_name}"
        if made is None:
            return TemplateResponse(request, "clients/add.html", {**context, "title": title, "form": form})
        if isinstance(made, Client):
            messages.success(request, f"{made.name} was added")
            return HttpResponseRedirect(back)
        text = json.dumps(made.model_dump(mode="json"), indent=2)
        context |= {"title": f"{made.client} {made.device}", "configuration": text}
        shown = TemplateResponse(request, "clients/configuration.html", context)
        shown["Cache-Control"] = "no-store"
        return shown


@admin.register(Client)
class ClientAdmin(Adding, ReadOnlyAdmin):
    """Clients: add, suspend, resume, revoke."""

    add_form = ClientForm

    list_display = ("name", "state", "home", "expires_at", "created_at")
    list_filter = ("state", "home")
    search_fields = ("name",)
    fields = ("name", "state", "home", "allowed_models", "limits", "expires_at", "created_at")
    actions = ("suspend", "resume", "revoke")

    @admin.action(permissions=["verb"], description="Suspend the chosen clients")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        """Cut them off until they are resumed."""
        _apply(request, queryset, suspend_client, "suspended")

    @admin.action(permissions=["verb"], description="Resume the chosen clients")
    def resume(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        """Serve them again."""
        _apply(request, queryset, resume_client, "resumed")

    @admin.action(permissions=["verb"], description="Revoke the chosen clients for good")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Client]) -> None:
        """Cut them off for good."""
        _apply(request, queryset, revoke_client, "revoked")


@admin.register(Device)
class DeviceAdmin(Adding, ReadOnlyAdmin):
    """Devices: add, which shows the configuration once, and revoke."""

    add_form = DeviceForm

    list_display = ("name", "client", "state", "public_key", "index", "expires_at", "created_at")
    list_filter = ("state",)
    search_fields = ("name", "client__name", "public_key")
    fields = ("client", "name", "state", "public_key", "index", "expires_at", "created_at", "revoked_at")
    actions = ("revoke",)

    @admin.action(permissions=["verb"], description="Revoke the chosen devices for good")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        """Cut them off for good."""
        _apply(request, queryset, revoke_device, "revoked")


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    """Invitations: approve, cancel. They are made where their ticket can be shown: by the API and the command line."""

    list_display = ("__str__", "state", "fingerprint", "created_at", "expires_at", "ended_at")
    list_filter = ("state",)
    list_select_related = ("client",)
    search_fields = ("device_name", "client__name")
    fields = (
        "client",
        "device_name",
        "state",
        "needs_approval",
        "public_key",
        "fingerprint",
        "refusal",
        "created_at",
        "expires_at",
        "redeemed_at",
        "ended_at",
    )
    actions = ("approve", "cancel")

    @admin.action(permissions=["verb"], description="Approve the keys of the chosen invitations")
    def approve(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> None:
        """Let the keys in whose fingerprints were compared."""
        _apply(request, queryset, approve_invitation, "approved")

    @admin.action(permissions=["verb"], description="Cancel the chosen invitations")
    def cancel(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> None:
        """End them."""
        _apply(request, queryset, cancel_invitation, "cancelled")

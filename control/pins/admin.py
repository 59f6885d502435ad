"""Model pins in the admin: shown."""

from __future__ import annotations

from django.contrib import admin

from control.pins.models import ModelPin
from control.readonly import ReadOnlyAdmin


@admin.register(ModelPin)
class ModelPinAdmin(ReadOnlyAdmin):
    """Pinned models."""

    list_display = ("name", "version", "state", "signer", "pin_id", "activated_at")
    list_filter = ("state",)

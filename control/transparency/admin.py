"""Checkpoints in the admin: shown."""

from __future__ import annotations

from django.contrib import admin

from control.readonly import ReadOnlyAdmin
from control.transparency.models import CheckpointRecord


@admin.register(CheckpointRecord)
class CheckpointRecordAdmin(ReadOnlyAdmin):
    """Signed heads of the log."""

    list_display = ("size", "signed_at")

"""Checkpoints in the admin: shown."""

from __future__ import annotations

from django.contrib import admin

from control.log.models import CheckpointRecord
from control.readonly import ReadOnlyAdmin


@admin.register(CheckpointRecord)
class CheckpointRecordAdmin(ReadOnlyAdmin):
    """Signed heads of the log."""

    list_display = ("size", "signed_at")

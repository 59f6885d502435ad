"""Receipts and alarms in the admin: shown."""

from __future__ import annotations

from django.contrib import admin

from control.audit.models import Alarm, ReceiptRecord
from control.readonly import ReadOnlyAdmin


@admin.register(ReceiptRecord)
class ReceiptRecordAdmin(ReadOnlyAdmin):
    """Receipts as they were signed."""

    list_display = ("receipt_id", "node", "client", "seq", "verified", "admitted_at")
    list_filter = ("verified", "node")
    search_fields = ("receipt_id", "client")


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    """Alarms."""

    list_display = ("kind", "node", "subject", "count", "raised_at")
    list_filter = ("kind", "node")

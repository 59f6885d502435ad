"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class AuditApp(AppConfig):
    """Receipts and alarms."""

    name = "control.audit"
    label = "audit"

"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class BackupApp(AppConfig):
    """Backup, restore, epochs."""

    name = "control.backup"
    label = "backup"

"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class JournalApp(AppConfig):
    """What operators did."""

    name = "control.journal"
    label = "journal"

    def ready(self) -> None:
        """Listen to logins."""
        from control.journal import logins  # noqa: F401 - its receivers connect when it is imported

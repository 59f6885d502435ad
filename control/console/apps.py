"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class ConsoleApp(AppConfig):
    """The operators' console. It has no rows of its own."""

    name = "control.console"
    label = "console"

"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class ApiApp(AppConfig):
    """The HTTP API."""

    name = "control.api"
    label = "api"

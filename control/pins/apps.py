"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class PinsApp(AppConfig):
    """Pinned models."""

    name = "control.pins"
    label = "pins"

"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class TransparencyApp(AppConfig):
    """The log of receipts."""

    name = "control.transparency"
    label = "transparency"

"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class OperatorsApp(AppConfig):
    """Operators, their roles and their API tokens."""

    name = "control.operators"
    label = "operators"

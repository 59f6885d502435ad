"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class OperatorsApp(AppConfig):
    """API tokens of operators."""

    name = "control.operators"
    label = "operators"

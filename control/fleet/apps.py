"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class FleetApp(AppConfig):
    """Nodes and what they were sent."""

    name = "control.fleet"
    label = "fleet"

"""Django's handle on this app."""

from __future__ import annotations

from django.apps import AppConfig


class ClientsApp(AppConfig):
    """Clients and their devices."""

    name = "control.clients"
    label = "clients"

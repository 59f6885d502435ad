"""The addresses of the API, version 1."""

from __future__ import annotations

from django.urls import path, re_path
from rest_framework.routers import SimpleRouter

from control.api.health import Health
from control.api.openapi import Description
from control.api.problems import not_found
from control.audit.api import AlarmView, ReceiptView
from control.clients.api import ClientView, DeviceView, InvitationView
from control.fleet.api import NodeView
from control.journal.api import EventView
from control.pins.api import AliasView, PinView
from control.transparency.api import LogView

router = SimpleRouter(trailing_slash=False)
router.register("clients", ClientView, "client")
router.register("devices", DeviceView, "device")
router.register("invitations", InvitationView, "invitation")
router.register("nodes", NodeView, "node")
router.register("pins", PinView, "pin")
router.register("aliases", AliasView, "alias")
router.register("receipts", ReceiptView, "receipt")
router.register("log", LogView, "log")
router.register("alarms", AlarmView, "alarm")
router.register("events", EventView, "event")

urlpatterns = [
    *router.urls,
    path("health", Health.as_view(), name="health"),
    path("openapi.json", Description.as_view(), name="openapi"),
    re_path("", not_found),
]

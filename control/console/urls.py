"""Every page of the console. What changes something says so with `posts=True` in its view."""

from __future__ import annotations

from django.urls import path

from control.console.theme import choose_theme
from control.console.views import (
    alarms,
    clients,
    devices,
    invitations,
    log,
    models,
    nodes,
    operators,
    overview,
    receipts,
    reference,
    tokens,
)

app_name = "console"

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("alarms/", alarms.listing, name="alarms"),
    path("clients/", clients.listing, name="clients"),
    path("clients/add/", clients.add, name="client-add"),
    path("clients/<slug:name>/", clients.detail, name="client"),
    path("clients/<slug:name>/suspend/", clients.suspend, name="client-suspend"),
    path("clients/<slug:name>/resume/", clients.resume, name="client-resume"),
    path("clients/<slug:name>/revoke/", clients.revoke, name="client-revoke"),
    path("clients/<slug:name>/limits/", clients.limits, name="client-limits"),
    path("clients/<slug:name>/end/", clients.end, name="client-end"),
    path("clients/<slug:name>/invite/", invitations.add, name="client-invite"),
    path("clients/<slug:name>/aliases/add/", clients.alias_add, name="alias-add"),
    path("aliases/<int:pk>/remove/", clients.alias_remove, name="alias-remove"),
    path("invitations/<int:pk>/approve/", invitations.approve, name="invitation-approve"),
    path("invitations/<int:pk>/cancel/", invitations.cancel, name="invitation-cancel"),
    path("clients/<slug:name>/devices/add/", devices.add, name="device-add"),
    path("devices/", devices.listing, name="devices"),
    path("devices/<int:pk>/rotate/", devices.rotate, name="device-rotate"),
    path("devices/<int:pk>/end/", devices.end, name="device-end"),
    path("devices/<int:pk>/revoke/", devices.revoke, name="device-revoke"),
    path("models/", models.listing, name="models"),
    path("models/<slug:pin_id>/", models.detail, name="model"),
    path("models/<slug:pin_id>/activate/", models.activate, name="model-activate"),
    path("models/<slug:pin_id>/roll-back/", models.go_back, name="model-roll-back"),
    path("models/<slug:pin_id>/retire/", models.retire, name="model-retire"),
    path("nodes/", nodes.listing, name="nodes"),
    path("nodes/<slug:name>/", nodes.detail, name="node"),
    path("nodes/<slug:name>/duty/<slug:duty>/", nodes.duty, name="node-duty"),
    path("nodes/<slug:name>/plan/", nodes.plan, name="node-plan"),
    path("nodes/<slug:name>/health/", nodes.health, name="node-health"),
    path("nodes/<slug:name>/bundles/", nodes.bundles, name="node-bundles"),
    path("receipts/", receipts.listing, name="receipts"),
    path("receipts/export.<slug:form>", receipts.export, name="receipts-export"),
    path("receipts/<int:pk>/", receipts.detail, name="receipt"),
    path("receipts/<int:pk>/receipt.<slug:kind>", receipts.file, name="receipt-file"),
    path("log/", log.listing, name="log"),
    path("log/<int:size>/", log.detail, name="checkpoint"),
    path("log/<slug:name>.txt", log.file, name="log-file"),
    path("operators/", operators.listing, name="operators"),
    path("operators/add/", operators.add, name="operator-add"),
    path("operators/<int:pk>/role/", operators.role, name="operator-role"),
    path("operators/<int:pk>/sign-out/", operators.end_sessions, name="operator-sign-out"),
    path("operators/<int:pk>/disable/", operators.disable, name="operator-disable"),
    path("tokens/", tokens.listing, name="tokens"),
    path("tokens/add/", tokens.add, name="token-add"),
    path("tokens/<int:pk>/revoke/", tokens.revoke, name="token-revoke"),
    path("reference/", reference.reference, name="reference"),
    path("theme/", choose_theme, name="theme"),
]

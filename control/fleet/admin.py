"""Nodes and bundles in the admin: shown."""

from __future__ import annotations

from django.contrib import admin

from control.fleet.models import BundleRecord, Node
from control.readonly import ReadOnlyAdmin


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Nodes, with when they were last seen and the code of the last failed pass."""

    list_display = ("name", "duty", "address", "endpoint", "seats", "last_seen_at", "last_error")
    exclude = ("receipts_position",)


@admin.register(BundleRecord)
class BundleRecordAdmin(ReadOnlyAdmin):
    """What nodes were sent: numbers and digests."""

    list_display = ("node", "epoch", "generation", "digest", "created_at", "accepted_at")
    list_filter = ("node",)
    exclude = ("outline",)

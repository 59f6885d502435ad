"""Nodes, what control learned from them, and the bundles they were sent."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from appliance.core.bundle import Tunnel
from appliance.core.names import ZERO_DIGEST


class Node(models.Model):
    """One node.

    The first block is what the operator said, the second what the node said over its pinned connection, the third
    what the reconciler observed. Learned keys are written once: another key later is an alarm, not an update.
    """

    name = models.CharField(max_length=32, unique=True)
    address = models.GenericIPAddressField(help_text="management address")
    port = models.PositiveIntegerField(default=22)
    user = models.CharField(max_length=32, help_text="user of the forced command")
    host_key = models.TextField(help_text="pinned SSH host key, one line")
    endpoint = models.CharField(max_length=64, help_text="WireGuard, as clients reach it")
    listen_port = models.PositiveIntegerField()
    address4 = models.GenericIPAddressField(protocol="IPv4")
    address6 = models.GenericIPAddressField(protocol="IPv6")
    network4 = models.CharField(max_length=32)
    network6 = models.CharField(max_length=64)
    mtu = models.PositiveIntegerField(default=1420)
    seats = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    wireguard_public_key = models.CharField(max_length=44, blank=True)
    receipt_public_key = models.CharField(max_length=44, blank=True)
    tls_public_key = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the SPKI")
    certificate = models.TextField(blank=True)
    certificate_expires_at = models.DateTimeField(null=True)

    boot = models.CharField(max_length=32, blank=True)
    version = models.CharField(max_length=32, blank=True)
    health = models.JSONField(default=dict)
    receipts_position = models.PositiveBigIntegerField(default=0)
    receipts_past = models.CharField(
        max_length=64, blank=True, default=ZERO_DIGEST, help_text="digest over its journal up to there"
    )
    heartbeat = models.JSONField(default=dict, help_text="what its notary last signed")
    heartbeat_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=32, blank=True, help_text="code of the last failed pass")

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def tunnel(self) -> Tunnel:
        """The node's end of the tunnel as bundles state it."""
        return Tunnel(
            listen_port=self.listen_port,
            address4=self.address4,
            address6=self.address6,
            network4=self.network4,
            network6=self.network6,
            mtu=self.mtu,
        )


class BundleRecord(models.Model):
    """A bundle that was rendered for a node. Its text holds pre-shared keys and is not kept.

    Attributes:
        content: SHA-256 over the bundle with generation 1 and no predecessor: equal content, equal digest.
    """

    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="bundles")
    epoch = models.PositiveBigIntegerField()
    generation = models.PositiveBigIntegerField()
    previous = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64)
    content = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    accepted_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["node", "epoch", "generation"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["node", "epoch", "generation"], name="one_bundle_per_generation")
        ]

    def __str__(self) -> str:
        return f"{self.node_id}/{self.epoch}.{self.generation}"


class Epoch(models.Model):
    """The one row that says in which epoch control is. It is raised after a restore from a backup."""

    epoch = models.PositiveBigIntegerField(default=1)

    def __str__(self) -> str:
        return str(self.epoch)


def current_epoch() -> int:
    """Return the epoch, 1 before the first restore."""
    row, _ = Epoch.objects.get_or_create(pk=1)
    return row.epoch

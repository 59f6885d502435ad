"""Nodes, what control learned from them, their health over time, and the bundles they were sent."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from appliance.core.bundle import Tunnel
from appliance.core.names import ZERO_DIGEST


class Duty(models.TextChoices):
    """What a node is there for now."""

    SERVING = "serving"
    DRAINED = "drained"  # sessions go on to their ends, none is opened
    MAINTENANCE = (
        "maintenance"  # drained; and somebody works on it: no bundle is sent, and its state is no alarm
    )


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
    duty = models.CharField(max_length=16, choices=Duty.choices, default=Duty.SERVING)
    created_at = models.DateTimeField(auto_now_add=True)

    wireguard_public_key = models.CharField(max_length=44, blank=True)
    receipt_public_key = models.CharField(max_length=44, blank=True)
    tls_public_key = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the SPKI")
    certificate = models.TextField(blank=True)
    certificate_expires_at = models.DateTimeField(null=True)

    boot = models.CharField(max_length=32, blank=True)
    version = models.CharField(max_length=32, blank=True)
    health = models.JSONField(default=dict, help_text="`appliance.core.health.Health`, the last")
    health_at = models.DateTimeField(null=True)
    clock_offset_ms = models.BigIntegerField(default=0, help_text="of its clock from control's, at least")
    drift_passes = models.PositiveIntegerField(default=0, help_text="passes that left it at another bundle")
    conditions = models.JSONField(default=dict, help_text="what is wrong now, and since when")
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
        outline: Digests of the bundle's parts, to say what the next one changes; empty on all but the newest.
        changes: What it changed, in lines.
    """

    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="bundles")
    epoch = models.PositiveBigIntegerField()
    generation = models.PositiveBigIntegerField()
    previous = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64)
    content = models.CharField(max_length=64)
    outline = models.JSONField(default=dict)
    changes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    accepted_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["node", "epoch", "generation"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["node", "epoch", "generation"], name="one_bundle_per_generation")
        ]

    def __str__(self) -> str:
        return f"{self.node_id}/{self.epoch}.{self.generation}"


class HealthSample(models.Model):
    """The figures of one report, for charts: the last of its minute, after a day the last of its hour.

    Attributes:
        at: The minute.
        cpu_permille: Load over one minute per processor.
        memory_permille, gpu_memory_permille: In use.
        disk_permille: In use, of the fullest file system.
        gpu_permille: Utilisation, the mean of all GPUs.
        temperature_c: Of the hottest sensor, GPUs too.
    """

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField()
    cpu_permille = models.PositiveIntegerField()
    memory_permille = models.PositiveIntegerField()
    disk_permille = models.PositiveIntegerField()
    temperature_c = models.IntegerField(null=True)
    gpu_permille = models.PositiveIntegerField(null=True)
    gpu_memory_permille = models.PositiveIntegerField(null=True)
    cells = models.PositiveIntegerField()
    seats_taken = models.PositiveIntegerField()
    seats_total = models.PositiveIntegerField()
    sessions = models.PositiveIntegerField()
    queue = models.PositiveIntegerField()
    tokens_per_s = models.PositiveBigIntegerField()
    peers_connected = models.PositiveIntegerField()
    clock_offset_ms = models.BigIntegerField()

    class Meta:
        ordering: ClassVar = ["node", "at"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["node", "at"], name="one_sample_per_minute")]

    def __str__(self) -> str:
        return f"{self.node_id} {self.at:%Y-%m-%dT%H:%MZ}"


class PeerReport(models.Model):
    """Who is connected, as a node said last: replaced by what it says next, and deleted after three minutes.

    Not in the node's own row, which is read with every client: there may be ten thousand peers.

    Attributes:
        peers: `appliance.core.health.Peers`.
    """

    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="peer_report")
    at = models.DateTimeField()
    peers = models.JSONField()

    def __str__(self) -> str:
        return f"{self.node_id}"


class NodePlan(models.Model):
    """What `apply` would do on a node, as the node said when somebody asked last.

    Attributes:
        asked_by: Name of the operator.
        answered_at: None while nobody answered.
        error: Code of why there is no plan; empty if there is one.
        generation: Of the bundle that it is the plan of.
        actions: The first of its lines.
        total: How many lines there are.
    """

    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="plan")
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=32, blank=True)
    generation = models.PositiveBigIntegerField(null=True)
    actions = models.JSONField(default=list)
    total = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.node_id}: {self.total}"


class Epoch(models.Model):
    """The one row that says in which epoch control is. It is raised after a restore from a backup."""

    epoch = models.PositiveBigIntegerField(default=1)

    def __str__(self) -> str:
        return str(self.epoch)


def current_epoch() -> int:
    """Return the epoch, 1 before the first restore."""
    row, _ = Epoch.objects.get_or_create(pk=1)
    return row.epoch

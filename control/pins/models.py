"""Pinned models, how far each node is with them, and what clients call them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from appliance.core.pin import Manifest
from control.clients.models import Client
from control.fleet.models import Node


class PinState(models.TextChoices):
    """Where a pin is in its life.

    `imported` → `verified` ⇄ `active` → `retired`: a pin that another replaces goes back to `verified`, and can be activated again.
    """

    IMPORTED = "imported"  # its files are here, nobody looked at them
    VERIFIED = "verified"  # they are the pinned bytes, a GGUF that parses, a template that renders, a signature that holds
    ACTIVE = "active"  # in bundles
    RETIRED = "retired"  # for good; kept for the receipts that name it


class ModelPin(models.Model):
    """One exact model. Its files lie in control's store under their digests.

    Attributes:
        signature: Text of its OpenSSF model signature, "" if it came without one.
        signer: Who signed, as `control.pins.signature.signer_id`; "" until that was verified.
        facts: `control.pins.facts.Facts` of the last verification, but the template; {} before it.
        activated_at: When it was activated last, by an activation or a rollback.
    """

    name = models.CharField(max_length=32)
    version = models.CharField(max_length=32)
    pin_id = models.CharField(max_length=64, unique=True)
    manifest = models.JSONField()
    state = models.CharField(max_length=16, choices=PinState.choices, default=PinState.IMPORTED)
    signature = models.TextField(blank=True)
    signer = models.CharField(max_length=64, blank=True)
    facts = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    verified_at = models.DateTimeField(null=True)
    activated_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["name", "id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["name", "version"], name="one_pin_per_version"),
            models.UniqueConstraint(
                fields=["name"], condition=Q(state="active"), name="one_active_pin_per_name"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def parsed_manifest(self) -> Manifest:
        """Return the manifest."""
        return Manifest.parse(self.manifest)


class ClientAlias(models.Model):
    """Another name by which one client asks for one of its models. `default` names the one that its cell loads."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="aliases")
    alias = models.CharField(max_length=32)
    model = models.CharField(max_length=32)

    class Meta:
        ordering: ClassVar = ["client", "alias"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["client", "alias"], name="one_model_per_alias")
        ]

    def __str__(self) -> str:
        return f"{self.client_id}/{self.alias}"


class NodeModels(models.Model):
    """What a node has of models, as the reconciler last heard it.

    Attributes:
        held: Digests of its complete files. It names a file by a digest only after it hashed what came.
        applied: Pin ids of the bundle that it accepted last.
    """

    node = models.OneToOneField(Node, on_delete=models.CASCADE, primary_key=True, related_name="models_held")
    held = models.JSONField(default=list)
    applied = models.JSONField(default=list)
    heard_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return str(self.node_id)

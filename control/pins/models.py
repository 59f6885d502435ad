"""Pinned models."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from appliance.core.pin import Manifest


class PinState(models.TextChoices):
    """Where a pin is in its life."""

    ACTIVE = "active"  # in bundles
    RETIRED = "retired"  # kept for the receipts that name it


class ModelPin(models.Model):
    """One exact model: its manifest, and where its files lie on the management machine.

    Attributes:
        location: Path of the first file; further files lie beside it under their manifest names.
    """

    name = models.CharField(max_length=32)
    version = models.CharField(max_length=32)
    pin_id = models.CharField(max_length=64, unique=True)
    manifest = models.JSONField()
    location = models.CharField(max_length=255)
    state = models.CharField(max_length=16, choices=PinState.choices, default=PinState.ACTIVE)
    created_at = models.DateTimeField(auto_now_add=True)

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

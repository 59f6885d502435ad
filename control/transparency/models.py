"""Signed heads of the log's tree. Rows are added and never changed; the tree itself is files."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class CheckpointRecord(models.Model):
    """A checkpoint that was signed.

    Attributes:
        size: Receipts in the tree.
        note: The signed note, as text.
    """

    size = models.PositiveBigIntegerField(unique=True)
    note = models.TextField()
    signed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["size"]

    def __str__(self) -> str:
        return str(self.size)

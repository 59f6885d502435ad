"""Signed heads of the log's tree. Rows are added; of the last one the signatures may change, never what they sign. The tree itself is files."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class CheckpointRecord(models.Model):
    """A checkpoint that was signed.

    Attributes:
        size: Receipts in the tree.
        note: The signed note, as text, with the cosignatures of witnesses.
        settled: The witnesses were asked. Until then it is shown to nobody else.
    """

    size = models.PositiveBigIntegerField(unique=True)
    note = models.TextField()
    settled = models.BooleanField(default=True)
    signed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["size"]

    def __str__(self) -> str:
        return str(self.size)

    @classmethod
    def settled_last(cls) -> CheckpointRecord | None:
        """Return the newest head that may be shown, None if there is none."""
        return cls.objects.filter(settled=True).last()

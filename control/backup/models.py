"""Raised epochs, and how the log went on after restores. Rows are added; those of unclaimed places go when they are claimed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class EpochRaise(models.Model):
    """An epoch that was raised with the restore key.

    Attributes:
        epoch: The new one.
        statement: `appliance.core.epoch.EpochStatement`, canonical JSON.
        signature: Of the restore key.
    """

    epoch = models.PositiveBigIntegerField(unique=True)
    statement = models.TextField()
    signature = models.CharField(max_length=88)
    raised_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["epoch"]

    def __str__(self) -> str:
        return str(self.epoch)


class LogRelease(models.Model):
    """After a restore the log may go on.

    Attributes:
        backup: That was restored; its own copy of this table cannot have the row.
        size: Receipts in the head from which it goes on.
        asked: Names of nodes and addresses of witnesses that it was compared with.
        without: Those that were left out, by an operator's word.
    """

    backup = models.CharField(max_length=32, unique=True)
    size = models.PositiveBigIntegerField()
    asked = models.JSONField(default=list)
    without = models.JSONField(default=list)
    released_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.backup


class UnclaimedPlace(models.Model):
    """A place of the log whose receipt was lost with the database: only its hash is known, until a node hands it over again.

    Attributes:
        leaf: Hash of the entry, in hexadecimal.
    """

    place = models.PositiveBigIntegerField(unique=True)
    leaf = models.CharField(max_length=64, db_index=True)

    def __str__(self) -> str:
        return str(self.place)

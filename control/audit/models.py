"""Receipts as nodes handed them over, and alarms. Rows are added and never changed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from appliance.core.receipt import Receipt, SignedReceipt
from control.fleet.models import Node


class ReceiptRecord(models.Model):
    """One receipt, exactly as it was signed.

    Attributes:
        receipt_id: Unique per node.
        client: Pseudonym.
        text: Canonical bytes of the receipt, as text.
        digest: SHA-256 of `text`.
        key, signature: As in `SignedReceipt`.
        verified: The signature verified when it came in.
        place: In the log, from 0; None until it has one. The one column that is written later.
    """

    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="receipts")
    boot = models.CharField(max_length=32)
    receipt_id = models.CharField(max_length=32)
    client = models.CharField(max_length=64, db_index=True)
    seq = models.PositiveBigIntegerField()
    text = models.TextField()
    digest = models.CharField(max_length=64)
    key = models.CharField(max_length=16)
    signature = models.CharField(max_length=88)
    verified = models.BooleanField()
    admitted_at = models.DateTimeField(auto_now_add=True)
    place = models.PositiveBigIntegerField(null=True, unique=True)

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["node", "receipt_id"], name="one_receipt_per_id")
        ]
        # Of millions of receipts the few that wait for their place are found at once.
        indexes: ClassVar = [
            models.Index(
                fields=["id"],
                name="waiting_for_the_log",
                condition=models.Q(place__isnull=True, verified=True),
            )
        ]

    def __str__(self) -> str:
        return self.receipt_id

    def signed(self) -> SignedReceipt:
        """Return the receipt with its signature, as a client verifies it."""
        receipt = Receipt.parse_canonical(self.text.encode("utf-8"))
        return SignedReceipt(receipt=receipt, key=self.key, signature=self.signature)


class AlarmKind(models.TextChoices):
    """What went wrong. Each means that a node, or somebody between, did what no honest node does."""

    RECEIPT_CHANGED = "receipt_changed"  # a receipt id came again with other bytes
    BAD_SIGNATURE = "bad_signature"  # a receipt does not verify
    BAD_SCHEMA = "bad_schema"  # an entry is no receipt
    CHAIN_GAP = "chain_gap"  # a client's seq or prev does not follow
    JOURNAL_REPLACED = "journal_replaced"  # the node's journal is not the one that it handed over before
    RECEIPTS_MISSING = "receipts_missing"  # the node no longer has receipts that it never handed over
    NODE_SILENT = "node_silent"  # no heartbeat since
    JOURNAL_SHRUNK = "journal_shrunk"  # the node's journal is shorter than what it handed over before
    KEY_CHANGED = "key_changed"  # a node shows another key than the one learned first
    NODE_AHEAD = "node_ahead"  # a node accepted a bundle that this control has no record of


class Alarm(models.Model):
    """Something an operator must look at.

    Attributes:
        subject: A receipt id, a position or the name of a key: nothing that a client chose.
        count: How often it came.
    """

    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="alarms")
    kind = models.CharField(max_length=32, choices=AlarmKind.choices)
    subject = models.CharField(max_length=64)
    count = models.PositiveBigIntegerField(default=1)
    raised_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["node", "kind", "subject"], name="one_alarm_per_subject")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"

"""Receipts as nodes handed them over, and alarms. Rows are added and never changed."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.db import models
from django.db.models.sql.compiler import SQLCompiler

from appliance.core.errors import RefusedError
from appliance.core.receipt import Receipt, SignedReceipt
from control.fleet.models import Node


class EndOf(models.Func):
    """The member `end` of a JSON text. Django's own expression would parse the text three times."""

    template = "JSON_EXTRACT(%(expressions)s, '$.end')"
    arity = 1

    def as_postgresql(self, compiler: SQLCompiler, connection: Any, **context: Any) -> Any:
        """Write it for PostgreSQL."""
        return self.as_sql(compiler, connection, template="((%(expressions)s)::jsonb ->> 'end')", **context)


DELETED: Final = ""  # in the place of the signature


class DeletedError(RefusedError):
    """Nothing but number, digest and place is left of a receipt (`control.audit.retention`)."""

    code = "deleted"


class ReceiptRecord(models.Model):
    """One receipt, exactly as it was signed.

    Attributes:
        receipt_id: Unique per node.
        client: Pseudonym.
        text: Canonical bytes of the receipt, as text; of one that was deleted, `end` alone.
        digest: SHA-256 of `text`.
        key, signature: As in `SignedReceipt`.
        verified: The signature verified when it came in.
        place: In the log, from 0; None until it has one. The one column that is written later.
        end: Why the session ended, read out of `text` by the database: it cannot disagree with what was signed.
        client_name: Not stored; set by whoever shows the receipt to people.
    """

    client_name: str | None = None

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
    end = models.GeneratedField(
        expression=EndOf("text"),
        output_field=models.CharField(max_length=16),
        db_persist=True,
    )

    class Meta:
        verbose_name = "receipt"
        ordering: ClassVar = ["id"]
        # The id first: one index keeps receipts apart and finds one whose node nobody named.
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["receipt_id", "node"], name="one_receipt_per_id")
        ]
        # What `control.audit.search` seeks by. Every index ends in the row's id, so its rows come in order.
        indexes: ClassVar = [
            models.Index(fields=["end"], name="receipts_by_end"),
            models.Index(fields=["admitted_at"], name="receipts_by_time"),
            models.Index(fields=["id"], name="receipts_not_verified", condition=models.Q(verified=False)),
            # A client's last receipt on a node is one look.
            models.Index(
                fields=["node", "client", "seq"],
                name="chain_of_a_client",
                condition=models.Q(verified=True),
            ),
            # Of millions of receipts the few that wait for their place are found at once.
            models.Index(
                fields=["id"],
                name="waiting_for_the_log",
                condition=models.Q(place__isnull=True, verified=True),
            ),
        ]

    def __str__(self) -> str:
        return self.receipt_id

    @property
    def deleted(self) -> bool:
        """Whether it was too old to be kept."""
        return self.signature == DELETED

    def signed(self) -> SignedReceipt:
        """Return the receipt with its signature, as a client verifies it.

        Raises:
            DeletedError: If it was too old to be kept.
        """
        if self.deleted:
            raise DeletedError(
                "what this receipt said was deleted here, as control.json says",
                field="receipt",
                hint="its client's copy and proof still verify",
            )
        receipt = Receipt.parse_canonical(self.text.encode("utf-8"))
        return SignedReceipt(receipt=receipt, key=self.key, signature=self.signature)


class AlarmKind(models.TextChoices):
    """What went wrong: first what no honest node does, then what an operator must mend."""

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
    DISK_FULL = "disk_full"  # a file system of a node is nearly full
    CLOCK_OFF = "clock_off"  # a node's clock is not control's
    DIGEST_FAILED = "digest_failed"  # a model file on a node has other bytes than its pin
    NODE_UNREACHABLE = "node_unreachable"  # a node does not answer
    NODE_DRIFTED = "node_drifted"  # passes leave a node at another bundle than it should have
    SEATS_EXHAUSTED = "seats_exhausted"  # every seat is taken, and somebody waits


class Alarm(models.Model):
    """Something an operator must look at.

    Attributes:
        subject: A receipt id, a position, the name of a key, or what is wrong since when: nothing that a client chose.
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

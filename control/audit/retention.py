"""Deletes what old receipts say, and keeps that they were: number, digest and place stay, so chains and the log go on verifying.

A client's own copy with its proof verifies as before; what is gone here can no longer be handed out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from django.db.models import Value
from django.db.models.functions import Concat
from django.utils import timezone

from control.audit.models import DELETED, ReceiptRecord

BATCH: Final = 1000  # rows in one transaction: a short lock


class Retention:
    """Works through the receipts in the order in which they came, and remembers how far.

    Args:
        days: That a receipt is kept after it came; None: for ever.
    """

    def __init__(self, days: int | None) -> None:
        self._days = days
        self._done: int | None = None  # rows up to this key have nothing to delete

    def delete_old(self, now: datetime | None = None) -> int:
        """Empty the receipts that are logged and old enough, at most a batch; return how many rows were looked at."""
        if self._days is None:
            return 0
        if self._done is None:
            kept = ReceiptRecord.objects.exclude(signature=DELETED).order_by("pk").first()
            self._done = kept.pk - 1 if kept else 0
        before = (now or timezone.now()) - timedelta(days=self._days)
        # Keys and times grow together, but for a clock that was set back: then the younger row waits for nobody.
        rows = ReceiptRecord.objects.filter(pk__gt=self._done).order_by("pk")
        came = rows.values_list("pk", "admitted_at")[:BATCH]
        keys = [key for key, _ in takewhile(lambda row: row[1] < before, came)]
        if keys:
            # What has no place stays as it is: it waits for the log, or it is evidence of an alarm.
            old = ReceiptRecord.objects.filter(pk__in=keys, place__isnull=False)
            old.update(text=Concat(Value('{"end":"'), "end", Value('"}')), signature=DELETED)
            self._done = keys[-1]
        return len(keys)

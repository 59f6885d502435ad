"""How many receipts came when: counted in the index of times, one range after the other, in one query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

from django.db import connection

# Grouping by the hour would call a function for each receipt; a range of the index is counted without reading a row.
_COUNT: Final = "SELECT COUNT(*) FROM audit_receiptrecord WHERE admitted_at >= %s AND admitted_at < %s"


def count_between(bounds: Sequence[datetime]) -> list[int]:
    """Return how many receipts control admitted between each bound and the next.

    Args:
        bounds: At least two, ascending.
    """
    adapt = connection.ops.adapt_datetimefield_value
    ranges = [(adapt(low), adapt(high)) for low, high in pairwise(bounds)]
    columns = ", ".join(f"({_COUNT})" for _ in ranges)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns}", [bound for pair in ranges for bound in pair])
        return list(cursor.fetchone())

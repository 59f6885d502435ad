"""The chain of a client's receipts on a node, as whoever kept some of them can check it (docs/spec/receipt-v1.md section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from appliance.core.errors import ReceiptError
from appliance.core.receipt import SignedReceipt


def verify_chains(kept: Iterable[SignedReceipt]) -> list[tuple[str, int, int]]:
    """Check that receipts of one client are of one chain on each node; return where others lie between them.

    Returns:
        Node, first and last number of each gap. Another device of the same client may have kept those.

    Raises:
        ReceiptError: If two have one number, or one does not name the one before it.
    """
    gaps = []
    ordered = sorted((signed.receipt for signed in kept), key=lambda receipt: (receipt.node, receipt.seq))
    for before, receipt in pairwise(ordered):
        if before.node != receipt.node:
            continue
        if before.seq == receipt.seq:
            raise ReceiptError(
                f"two receipts of {receipt.node} have the number {receipt.seq}", field="receipt.seq"
            )
        if before.seq + 1 < receipt.seq:
            gaps.append((receipt.node, before.seq + 1, receipt.seq - 1))
        elif receipt.prev != before.digest:
            raise ReceiptError(
                f"number {receipt.seq} of {receipt.node} does not follow number {before.seq}",
                field="receipt.prev",
            )
    return gaps

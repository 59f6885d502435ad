"""The archive: the journal, the ledger rebuilt from it, and where in the journal each receipt lies.

In memory a receipt costs its id and its offset; the text is read from the journal when somebody asks.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from pathlib import Path
from typing import Any

from appliance.core import canonical
from appliance.core.errors import RefusedError
from appliance.core.receipt import SignedReceipt
from inference.notary.journal import Journal, JournalDamagedError
from inference.notary.ledger import Ledger, NotOpenError
from inference.notary.records import OpenRecord, ReceiptRecord


class Archive:
    """All receipts of a node, in the order of the journal; positions count from 1."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        """Open the journal and rebuild the ledger from it.

        Raises:
            HostError: If the journal cannot be opened.
            JournalDamagedError: If a frame, or a chain of receipts, is not what was written.
        """
        self.journal = Journal(path)
        self.ledger = ledger
        self._offsets = array("Q")
        self._positions: dict[bytes, int] = {}
        opened: dict[str, Any] = {}
        for offset, payload in self.journal.replay():
            try:
                self._replay(offset, payload, opened)
            except (ValueError, KeyError, TypeError, RefusedError) as error:
                raise JournalDamagedError(path, offset) from error
        for record in opened.values():
            ledger.replay_open(OpenRecord.parse(record))

    def _replay(self, offset: int, payload: bytes, opened: dict[str, Any]) -> None:
        # Only what is still open at the end is checked against its schema: the frame's CRC and the chain vouch for
        # the rest, and a long journal has to be read within seconds.
        value = json.loads(payload)
        if value["kind"] == "open":
            opened[value["receipt"]] = value
            return
        receipt = value["signed"]["receipt"]
        digest = hashlib.sha256(canonical.encode(receipt)).hexdigest()
        self.ledger.replay_receipt(receipt["client"], receipt["id"], receipt["seq"], receipt["prev"], digest)
        opened.pop(receipt["id"], None)
        self.note(receipt["id"], offset)

    def __len__(self) -> int:
        return len(self._offsets)

    def note(self, receipt: str, offset: int) -> None:
        """Remember where a receipt lies."""
        self._offsets.append(offset)
        self._positions[bytes.fromhex(receipt)] = len(self._offsets)

    def at(self, position: int) -> SignedReceipt:
        """Return the receipt at a position."""
        payload = self.journal.read(self._offsets[position - 1])
        return ReceiptRecord.parse_canonical(payload).signed

    def of(self, client: str, receipt: str) -> SignedReceipt:
        """Return a client's own receipt.

        Raises:
            NotOpenError: `not_found`, for another client's receipt just as for one that does not exist.
        """
        try:
            found = self.at(self._positions[bytes.fromhex(receipt)])
        except (KeyError, ValueError):
            found = None
        if found is None or found.receipt.client != client:
            raise NotOpenError("no receipt of this id", field="receipt")
        return found

    def texts(self, after: int, limit: int) -> list[tuple[int, Any]]:
        """Return positions and decoded receipts, at most `limit`, beyond position `after`."""
        last = min(len(self), after + limit)
        return [
            (p, json.loads(self.journal.read(self._offsets[p - 1]))["signed"])
            for p in range(after + 1, last + 1)
        ]

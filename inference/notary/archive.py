"""The archive: the journal's segments, the ledger rebuilt from them, and where in them each receipt lies.

The journal is a folder. Receipts are appended to its last segment; when that is full a new one begins with all that the ones before it
say about now: how many receipts came before, each client's head and what it has spent of its day, the sessions that are open. So an old segment can go as soon as
control has admitted its receipts, and the journal stays within its bound. In memory a receipt costs its id and its offset.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.core import canonical, signing
from appliance.core.budget import Allowance
from appliance.core.errors import HostError, RefusedError
from appliance.core.receipt import SignedReceipt
from appliance.core.storage import sync_folder
from inference.notary.budget import Spent, day_of, is_told, used
from inference.notary.journal import JournalDamagedError, JournalUnavailableError, Segment
from inference.notary.ledger import Head, Ledger, NotOpenError
from inference.notary.records import (
    HeadRecord,
    OpenRecord,
    PlaceRecord,
    ReceiptRecord,
    SpentRecord,
    StartRecord,
    signed_text,
)

SEGMENT_BYTES = 16 * 2**20
MAX_BYTES = 2**30
RESERVED_BYTES = 8 * 1024  # for what ends an open session: the longest receipt has 7 KiB
_HEAD_BYTES = 512  # of each client at a segment's beginning: its head, and what it has spent


class JournalFullError(JournalUnavailableError):
    """Control has not admitted receipts for so long that there is no room for new sessions."""

    code = "journal_full"


@dataclass
class _Part:
    """A segment, and what of it is in memory.

    Attributes:
        before: Receipts in front of this segment.
        offsets: Of its receipts, in order.
        ids: Receipt id to offset.
        places: Receipt id to its place in the log, where that is known.
    """

    segment: Segment
    before: int
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    ids: dict[bytes, int] = field(default_factory=dict)
    places: dict[bytes, int] = field(default_factory=dict)

    @property
    def after(self) -> int:
        """Receipts up to the end of this segment."""
        return self.before + len(self.offsets)

    def note(self, receipt: str, offset: int) -> None:
        self.offsets.append(offset)
        self.ids[bytes.fromhex(receipt)] = offset


class Archive:
    """All receipts of a node that its journal still holds, in order; positions count from 1 and never start again.

    Args:
        folder: Of the segments; made if it is not there.
        ledger: Empty; rebuilt from them.
        max_bytes: Of all segments together. Up to half of it, admitted receipts stay for their clients to ask for.
        segment_bytes: Of one, before the next begins.

    Attributes:
        ledger: Rebuilt.
        max_bytes: As given.
        placed: Receipts of this node below this place in the log know theirs.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, *, max_bytes: int = MAX_BYTES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Open the journal and rebuild the ledger from it.

        Raises:
            HostError: If the journal cannot be opened, or another notary holds it.
            JournalDamagedError: If a frame, a chain of receipts, or a segment is not what was written.
            JournalUnavailableError: If it is new and cannot be written.
        """
        self.ledger = ledger
        self._folder = folder
        self.max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._admitted = 0
        self.placed = 0
        self._lock = _lock(folder)
        self._parts: list[_Part] = []
        self._last: dict[str, tuple[Segment, int]] = {}  # each client's last receipt, until `verify_last`
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        paths = sorted(self._folder.glob("*.frames"))
        for path in paths:
            segment = Segment(path)
            try:
                self._parts.append(self._replay(segment, last=path is paths[-1]))
            except BaseException:
                segment.close()
                raise
        if not self._parts:
            self._begin()
        self.ledger.replay_held()

    def _replay(self, segment: Segment, *, last: bool) -> _Part:
        part: _Part | None = None
        opened: dict[str, Any] = {}
        for offset, payload in segment.replay(last=last):
            try:
                value = json.loads(payload)
                if part is None:
                    part = self._replay_start(segment, value)
                else:
                    self._replay_record(part, offset, value, opened)
            except (ValueError, KeyError, TypeError, RefusedError) as error:
                raise JournalDamagedError(segment.path, offset) from error
        if part is None:
            raise JournalDamagedError(segment.path, 0)
        for record in opened.values():
            self.ledger.replay_open(OpenRecord.parse(record))
        return part

    def _replay_start(self, segment: Segment, value: Any) -> _Part:
        """Check that a segment continues the one before it."""
        start = StartRecord.parse(value)
        if not self._parts:
            self.ledger.past = start.past
        elif (number(segment.path), start.receipts, start.past) != (
            number(self._parts[-1].segment.path) + 1,
            self._parts[-1].after,
            self.ledger.past,
        ):
            raise ValueError("a segment is missing")
        self.placed = max(self.placed, start.placed)
        return _Part(segment, start.receipts)

    def _replay_record(self, part: _Part, offset: int, value: Any, opened: dict[str, Any]) -> None:
        # Only what is still open at the end is checked against its schema: the frame's CRC and the chain vouch for
        # the rest, and a long journal has to be read within seconds.
        if value["kind"] == "open":
            if self.holds(value["receipt"]) or bytes.fromhex(value["receipt"]) in part.ids:
                raise ValueError("a session was opened that has ended")
            opened[value["receipt"]] = value
            return
        if value["kind"] == "head":
            self.ledger.replay_head(
                value["client"], Head(value["seq"], value["digest"]), first=not self._parts
            )
            return
        if value["kind"] == "spent":
            # The segments before said so too, unless they are gone.
            spent = SpentRecord.parse(value)
            self.ledger.spent.setdefault(spent.client, Spent(spent.day, spent.requests, spent.tokens))
            return
        if value["kind"] == "place":
            self._note_place(PlaceRecord.parse(value), (*self._parts, part))
            return
        receipt = value["signed"]["receipt"]
        if receipt["node"] != self.ledger.node:
            raise ValueError("a receipt of another node")
        digest = hashlib.sha256(canonical.encode(receipt)).hexdigest()
        self.ledger.replay_receipt(receipt["client"], receipt["id"], receipt["seq"], receipt["prev"], digest)
        self._replay_used(receipt, opened.pop(receipt["id"], None))
        part.note(receipt["id"], offset)
        self._last[receipt["client"]] = part.segment, offset

    def _replay_used(self, receipt: dict[str, Any], opened: dict[str, Any] | None) -> None:
        tokens = receipt["prompt_tokens"] + receipt["completion_tokens"]
        told = is_told(receipt["requests"], verified=receipt["erase"]["verified"])
        granted = None if told or opened is None else opened.get("granted")
        counted = used(granted and Allowance.parse(granted), receipt["requests"], tokens, told=told)
        self.ledger.replay_used(receipt["client"], day_of(receipt["opened_at"]), *counted)

    def verify_last(self, public_key: str) -> None:
        """Check the signature of each client's last receipt; the chain vouches for what those before say.

        Raises:
            JournalDamagedError: If one is not signed with this key, or holds more than a receipt holds.
        """
        for segment, offset in self._last.values():
            try:
                signed = ReceiptRecord.parse_canonical(segment.read(offset)).signed
                text = signed.receipt.canonical_bytes()
                signing.verify(public_key, signing.Purpose.RECEIPT, text, signed.signature)
            except RefusedError as error:
                raise JournalDamagedError(segment.path, offset) from error
        self._last.clear()

    def __len__(self) -> int:
        return self._parts[-1].after

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(part.segment.size for part in self._parts)

    @property
    def waiting(self) -> int:
        """Receipts that control has not admitted, as far as it has said since this notary started."""
        return len(self) - self._admitted

    def verify_room(self, opening: int) -> None:
        """Check that one more session can be opened, and that all that are open can then still end.

        Args:
            opening: Sessions that are about to be opened.

        Raises:
            JournalFullError: If not.
        """
        sessions = len(self.ledger.open) + opening + 1
        if self.size + sessions * RESERVED_BYTES + len(self.ledger.heads) * _HEAD_BYTES > self.max_bytes:
            raise JournalFullError("the journal is full", hint="let control admit the receipts")

    def note_admitted(self, position: int) -> None:
        """Remember that control has the receipts up to a position."""
        self._admitted = max(self._admitted, min(position, len(self)))

    def drop_admitted(self) -> None:
        """Drop the oldest segments that control has and there is no room for. One that cannot be dropped stays."""
        while len(self._parts) > 1 and self.size > self.max_bytes // 2:
            part = self._parts[0]
            if part.after > self._admitted:
                return
            try:
                os.unlink(part.segment.path)
            except OSError:
                return
            part.segment.close()
            del self._parts[0]

    def _begin(self) -> None:
        """Make the next segment. Raises JournalUnavailableError."""
        last = self._parts[-1] if self._parts else None
        path = self._folder / f"{number(last.segment.path) + 1 if last else 1:012}.frames"
        before = last.after if last else 0
        segment, _ = Segment.make(path, [record.canonical_bytes() for record in self._state(before)])
        self._parts.append(_Part(segment, before))

    def _state(self, before: int) -> Iterator[StartRecord | HeadRecord | SpentRecord | OpenRecord]:
        """Yield what a segment begins with."""
        yield StartRecord(receipts=before, placed=self.placed, past=self.ledger.past)
        for client, head in self.ledger.heads.items():
            yield HeadRecord(client=client, seq=head.seq, digest=head.digest)
        for client, spent in self.ledger.settled().items():
            yield SpentRecord(client=client, day=spent.day, requests=spent.requests, tokens=spent.tokens)
        yield from self.ledger.open.values()

    def append(self, payloads: Sequence[bytes]) -> list[int]:
        """Make records durable together; return their offsets, for `note`. Blocks for one fsync, or two where a segment begins.

        Raises:
            JournalUnavailableError: If that failed; the journal then says what it said before.
        """
        if self._parts[-1].segment.size >= self._segment_bytes:
            with suppress(JournalUnavailableError):  # the last one grows meanwhile
                self._begin()
        return self._parts[-1].segment.append(payloads)

    def note(self, receipt: str, offset: int) -> None:
        """Remember where a receipt lies that was appended last."""
        self._parts[-1].note(receipt, offset)

    def holds(self, receipt: str) -> bool:
        """Return whether a receipt is still here."""
        key = bytes.fromhex(receipt)
        return any(key in part.ids for part in self._parts)

    def place(self, records: Sequence[PlaceRecord]) -> None:
        """Remember where in the log receipts are, once that is durable. Of those that are here no more nothing is kept."""
        for record in records:
            self._note_place(record, self._parts)

    def _note_place(self, record: PlaceRecord, parts: Sequence[_Part]) -> None:
        key = bytes.fromhex(record.receipt)
        for part in parts:
            if key in part.ids:
                part.places[key] = record.place
        self.placed = max(self.placed, record.place + 1)

    def of(self, client: str, receipt: str) -> tuple[SignedReceipt, int | None]:
        """Return a client's own receipt, and its place in the log if that is known.

        Raises:
            NotOpenError: `not_found`, for another client's receipt just as for one that does not exist any more.
        """
        with suppress(ValueError):
            key = bytes.fromhex(receipt)
            for part in reversed(self._parts):
                if (offset := part.ids.get(key)) is not None:
                    found = ReceiptRecord.parse_canonical(part.segment.read(offset)).signed
                    if found.receipt.client == client:
                        return found, part.places.get(key)
        raise NotOpenError("no receipt of this id", field="receipt")

    def texts(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Return positions and the canonical texts of signed receipts, at most `limit`, beyond position `after`."""
        found: list[tuple[int, str]] = []
        for part in self._parts:
            first = max(after, part.before) - part.before
            for index in range(first, min(len(part.offsets), first + limit - len(found))):
                payload = part.segment.read(part.offsets[index])
                found.append((part.before + index + 1, signed_text(payload)))
        return found

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            part.segment.close()
        os.close(self._lock)


def number(path: Path) -> int:
    """Return the number of a segment, from its name. Raises ValueError."""
    return int(path.stem)


def _lock(folder: Path) -> int:
    """Make the folder if need be, and hold it until the descriptor is closed."""
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for torn in folder.glob("*.new"):
                torn.unlink()
        except BaseException:
            os.close(descriptor)
            raise
    except BlockingIOError as error:
        raise HostError(f"another notary holds {folder}", hint="stop it first") from error
    except OSError as error:
        raise HostError(f"cannot open {folder}", hint="is its folder the notary's own?") from error
    return descriptor

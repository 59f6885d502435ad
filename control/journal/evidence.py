"""The journal as evidence: every event with what shows that the log holds it, under one signed head (docs/spec/audit-event-v1.md section 5).

`verify_evidence` needs the file and the log's keys, no database and no network. Nothing of Django is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from appliance.core.names import ZERO_DIGEST, Digest, decode_base64
from appliance.core.schema import Closed
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import InclusionError
from appliance.transparency.merkle import MOST_PROOF_HASHES, leaf_hash, verify_inclusion
from appliance.transparency.note import Note
from control.journal.errors import (
    AuditChainError,
    AuditFormatError,
    AuditNumberError,
    AuditTruncatedError,
)
from control.journal.event import Event
from control.journal.vocabulary import Count

MOST_LINE_BYTES: Final = 256 * 1024
Hash = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]


class EvidenceHead(Closed):
    """The first line.

    Attributes:
        after: Number of the event before the first one here; 0: the journal from its beginning.
        checkpoint: The signed head of the log, as text.
        events: How many follow.
        head: Digest of the last one; with no events that of the one before.
    """

    after: Count
    checkpoint: Annotated[str, StringConstraints(max_length=MOST_LINE_BYTES)]
    events: Count
    head: Digest
    type: Literal["audit-export"] = "audit-export"
    v: Literal[1] = 1


class EvidenceLine(Closed):
    """Every other line.

    Attributes:
        event: The event; its canonical bytes are the entry of the log.
        hashes: From the leaf's sibling to the root's child, in base64.
        place: In the log, from 0.
    """

    event: Event
    hashes: Annotated[tuple[Hash, ...], Field(max_length=MOST_PROOF_HASHES)]
    place: Count


@dataclass(frozen=True)
class Evidence:
    """What a file showed.

    Attributes:
        after: As in `EvidenceHead`.
        last: Number of the last event.
        head: Its digest.
        checkpoint: The head of the log that holds them.
    """

    after: int
    last: int
    head: str
    checkpoint: Checkpoint


@dataclass
class _Chain:
    """How far a file was read.

    Attributes:
        last, head, place: Number, digest and place of the last event; of an earlier file's where this one goes on from there.
    """

    last: int
    head: str | None
    place: int = -1

    def add(self, line: EvidenceLine, checkpoint: Checkpoint) -> None:
        """Check that an event is the next one and in the log. Raises AuditError or InclusionError."""
        event, where = line.event, f"event {self.last + 1}"
        if event.number != self.last + 1:
            raise AuditNumberError(f"number {event.number} stands in its place", field=where)
        if self.head not in (None, event.prev):
            raise AuditChainError("it does not follow the one before it", field=where)
        if line.place <= self.place:
            raise AuditNumberError("its place in the log is not behind the one before it", field=where)
        entry = event.canonical_bytes()
        try:
            hashes = [decode_base64(text) for text in line.hashes]
            verify_inclusion(leaf_hash(entry), line.place, checkpoint.size, hashes, checkpoint.root)
        except (ValueError, InclusionError):
            raise InclusionError("the log does not hold it as it stands here", field=where) from None
        self.last, self.head, self.place = event.number, event.digest, line.place


def verify_evidence(lines: Iterable[bytes], policy: Policy, earlier: Evidence | None = None) -> Evidence:
    """Return what a file shows.

    1. The head of the log is signed by the keys that are trusted, and cosigned as the policy says.
    2. Each event has the next number, names the one before it, stands behind it in the log, and the log holds it.
    3. There are as many as the file says, and the last is the one that it names.
    4. It goes on from an earlier file: no event of that one is missing or another one.

    Args:
        lines: Of the file, each with its end.
        policy: The log's keys and witnesses.
        earlier: What an earlier file showed. A journal whose last events were cut off everywhere is refused by nothing else.

    Raises:
        AuditError: Naming the event where the file is not what it says.
        LogError: If the log's head does not verify, or does not hold an event.
    """
    parts = _lines(lines)
    head = EvidenceHead.parse_canonical(next(parts, b""), AuditFormatError)
    checkpoint = policy.verify(Note.parse(head.checkpoint.encode("utf-8")))
    chain = _Chain(head.after, ZERO_DIGEST if head.after == 0 else None)
    _begin(head, chain, checkpoint, earlier)
    for part in parts:
        chain.add(EvidenceLine.parse_canonical(part, AuditFormatError), checkpoint)
        if earlier and chain.last == earlier.last and chain.head != earlier.head:
            raise AuditChainError("it is another one than it was", field=f"event {chain.last}")
    if chain.last != head.after + head.events:
        raise AuditTruncatedError(
            f"the file ends with event {chain.last}, and says that there are more"
            if chain.last < head.after + head.events
            else "there are more events than the file says",
            field=f"event {chain.last + 1}",
        )
    if head.head != (chain.head or head.head):
        raise AuditChainError("the last event is another one than the file names", field="head")
    return Evidence(head.after, chain.last, head.head, checkpoint)


def _begin(head: EvidenceHead, chain: _Chain, checkpoint: Checkpoint, earlier: Evidence | None) -> None:
    """Check that a file goes on from an earlier one; return None or raise."""
    if earlier is None:
        return
    if head.after > earlier.last:
        raise AuditNumberError(
            "events between the earlier file and this one are missing",
            field=f"event {earlier.last + 1}",
            hint=f"ask for an export --after {earlier.last}",
        )
    if head.after + head.events < earlier.last or checkpoint.size < earlier.checkpoint.size:
        raise AuditTruncatedError(
            "events that the earlier file has are missing", field=f"event {head.after + head.events + 1}"
        )
    if head.after == earlier.last:
        chain.head = earlier.head


def _lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends. Raises AuditFormatError for one that has none."""
    for number, line in enumerate(lines, 1):
        if len(line) > MOST_LINE_BYTES or not line.endswith(b"\n"):
            raise AuditFormatError("a line that is cut off or too long", field=f"line {number}")
        yield line[:-1]

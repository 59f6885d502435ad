"""The ledger: each client's place in its chain of receipts, and the sessions that are open. Pure.

Changes are staged first and committed when the journal has made them durable, so that a failed write leaves no gap in
any chain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from appliance.core.errors import RefusedError
from appliance.core.heartbeat import extend_past
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import Draft, Receipt
from inference.notary.budget import Spent, day_of, held, is_told, used
from inference.notary.records import OpenRecord


class NotOpenError(RefusedError):
    """This client has no open session with a receipt of this id."""

    code = "not_found"


class BrokenChainError(RefusedError):
    """A receipt that does not follow the client's last one."""

    code = "chain_broken"


@dataclass(frozen=True)
class Head:
    """A client's last receipt: its number and digest."""

    seq: int = 0
    digest: str = ZERO_DIGEST


@dataclass
class Ledger:
    """The durable state.

    Attributes:
        node, boot: Go into every receipt.
        heads: Pseudonym to head.
        open: Receipt id to what was said when its session was opened.
        past: Digest over all receipts so far (`extend_past`).
        spent: Pseudonym to what the client's sessions of its last day count for.
        tokens: Completion tokens of the receipts that were written in this run.
    """

    node: str
    boot: str
    heads: dict[str, Head] = field(default_factory=dict)
    open: dict[str, OpenRecord] = field(default_factory=dict)
    past: str = ZERO_DIGEST
    spent: dict[str, Spent] = field(default_factory=dict)
    tokens: int = 0

    def replay_open(self, record: OpenRecord) -> None:
        """Take over an open record of the journal."""
        self.open[record.receipt] = record

    def replay_used(self, client: str, day: int, requests: int, tokens: int) -> None:
        """Count a session of the journal that has ended."""
        self.spent[client] = self.spent.get(client, Spent()).replayed(day, requests, tokens)

    def replay_held(self) -> None:
        """After the whole journal: count what the sessions that are open were granted."""
        for record in self.open.values():
            self.replay_used(record.client, day_of(record.opened_at), *held(record.granted))

    def settled(self) -> dict[str, Spent]:
        """Return what the sessions that have ended used, by pseudonym."""
        settled = dict(self.spent)
        for record in self.open.values():
            spent = settled.get(record.client)
            if spent is not None and day_of(record.opened_at) == spent.day:
                requests, tokens = held(record.granted)
                settled[record.client] = spent.plus(-requests, -tokens)
        return settled

    def replay_head(self, client: str, head: Head, *, first: bool) -> None:
        """Take over a head with which the first segment of the journal begins, or compare that of a later one.

        Raises:
            BrokenChainError: If the segments before say another.
        """
        if self.heads.setdefault(client, head) != head if first else self.heads.get(client) != head:
            raise BrokenChainError("is not the client's last receipt", field="digest")

    def replay_receipt(self, client: str, receipt: str, seq: int, prev: str, digest: str) -> None:
        """Take over a receipt of the journal.

        Raises:
            BrokenChainError: If it does not follow the client's last one.
        """
        head = self.heads.get(client, Head())
        if (seq, prev) != (head.seq + 1, head.digest):
            raise BrokenChainError("does not follow the client's last receipt", field="prev")
        self.heads[client] = Head(seq, digest)
        self.past = extend_past(self.past, digest)
        self.open.pop(receipt, None)


@dataclass
class Stage:
    """Changes to a ledger that the journal has not made durable yet."""

    ledger: Ledger
    heads: dict[str, Head] = field(default_factory=dict)
    opened: dict[str, OpenRecord] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    past: str = ""
    spent: dict[str, Spent] = field(default_factory=dict)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.past = self.ledger.past

    def spent_by(self, client: str) -> Spent:
        """Return what a client's sessions of its last day count for."""
        return self.spent.get(client) or self.ledger.spent.get(client, Spent())

    def open(self, record: OpenRecord) -> None:
        """Open a session."""
        self.opened[record.receipt] = record
        day = self.spent_by(record.client).on(day_of(record.opened_at))
        self.spent[record.client] = day.plus(*held(record.granted))

    def close(self, client: str, receipt: str, draft: Draft, ended_at: str) -> bytes:
        """Return the canonical bytes of the next receipt of the client's chain, for a session of its own.

        Raises:
            NotOpenError: If no session of this client is open under this receipt id.
        """
        record = self.opened.get(receipt) or self.ledger.open.get(receipt)
        if record is None or record.client != client or receipt in self.closed:
            raise NotOpenError("no open session has this receipt", field="receipt")
        head = self.heads.get(client) or self.ledger.heads.get(client, Head())
        made = Receipt(
            id=receipt,
            session=record.opening.session,
            client=client,
            seq=head.seq + 1,
            prev=head.digest,
            node=self.ledger.node,
            boot=self.ledger.boot,
            opened_at=record.opened_at,
            ended_at=ended_at,
            end=draft.end,
            requests=draft.requests,
            prompt_tokens=draft.prompt_tokens,
            completion_tokens=draft.completion_tokens,
            retrieved_chunks=draft.retrieved_chunks,
            corpora=draft.corpora,
            models=record.opening.models,
            runtime=record.opening.runtime,
            confinement=record.opening.confinement,
            erase=draft.erase,
        )
        self._settle(record, draft)
        content = made.canonical_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.heads[client] = Head(made.seq, digest)
        self.past = extend_past(self.past, digest)
        self.closed.add(receipt)
        self.tokens += draft.completion_tokens
        return content

    def _settle(self, record: OpenRecord, draft: Draft) -> None:
        """Count what a session used, and no more what it was granted, unless its day is over."""
        spent = self.spent_by(record.client)
        if spent.day != day_of(record.opened_at):
            return
        requests, tokens = used(
            record.granted,
            draft.requests,
            draft.prompt_tokens + draft.completion_tokens,
            told=is_told(draft.requests, verified=draft.erase.verified),
        )
        granted = held(record.granted)
        self.spent[record.client] = spent.plus(requests - granted[0], tokens - granted[1])

    def commit(self) -> None:
        """Take the changes over into the ledger; they are durable now."""
        self.ledger.spent.update(self.spent)
        self.ledger.heads.update(self.heads)
        self.ledger.open.update(self.opened)
        self.ledger.past = self.past
        self.ledger.tokens += self.tokens
        for receipt in self.closed:
            del self.ledger.open[receipt]

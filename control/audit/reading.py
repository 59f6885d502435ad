"""A receipt in plain words, for people: what it says, group by group. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from appliance.core.receipt import End, Receipt
from control.audit.models import ReceiptRecord

ENDS: Final = {
    End.ONE_SHOT: "One request, answered",
    End.DELETED: "The client deleted the session",
    End.EXPIRED: "The session's time ran out",
    End.DISCONNECTED: "The client went away before the answer was complete",
    End.REVOKED: "The device or client was cut off",
    End.DRAINED: "The cell was asked to stop",
    End.FAILED: "The engine gave up on the request",
    End.CRASHED: "The cell died without a word; the notary wrote this receipt",
}
UNUSUAL: Final = frozenset({End.REVOKED, End.FAILED, End.CRASHED})


class Fact(NamedTuple):
    """One thing that a receipt says.

    Attributes:
        label, value: What, and what it is.
        note: What it means, where that is not plain.
        code: The value is an id or digest.
        good: True or False where there is an answer that it should be.
    """

    label: str
    value: str
    note: str = ""
    code: bool = False
    good: bool | None = None


class Group(NamedTuple):
    """Facts under a title."""

    title: str
    facts: tuple[Fact, ...]


def describe_receipt(record: ReceiptRecord, receipt: Receipt, client: str | None) -> tuple[Group, ...]:
    """Return what a receipt says.

    Args:
        record: As it is stored.
        receipt: What its text says.
        client: Name of the client; None where control has none of the pseudonym.
    """
    groups = (
        _who(receipt, client),
        _when(record, receipt),
        _what(receipt),
        _confinement(receipt),
        _erase(receipt),
        _place(record, receipt),
    )
    if record.verified:
        return groups
    # Anybody may have written it: nothing that it says is called good.
    return tuple(
        Group(title, tuple(fact._replace(good=None if fact.good else fact.good) for fact in facts))
        for title, facts in groups
    )


def _who(receipt: Receipt, client: str | None) -> Group:
    return Group(
        "Who",
        (
            Fact(
                "Client", client or "unknown", "" if client else "no client of this control has the pseudonym"
            ),
            Fact("Pseudonym", receipt.client, "the only name of the client in the receipt", code=True),
            Fact("Node", receipt.node),
            Fact("Session", receipt.session, code=True),
        ),
    )


def _when(record: ReceiptRecord, receipt: Receipt) -> Group:
    opened, ended = (datetime.fromisoformat(text) for text in (receipt.opened_at, receipt.ended_at))
    return Group(
        "When",
        (
            Fact("Opened", _moment(opened), "by the node's clock"),
            Fact("Ended", _moment(ended), f"{(ended - opened).total_seconds():,.3f} s later"),
            Fact("Why it ended", ENDS[receipt.end], good=False if receipt.end in UNUSUAL else None),
            Fact("Came to control", _moment(record.admitted_at)),
        ),
    )


def _what(receipt: Receipt) -> Group:
    return Group(
        "What ran",
        (
            Fact("Requests", f"{receipt.requests:,}"),
            Fact("Prompt", f"{receipt.prompt_tokens:,} tokens"),
            Fact("Completion", f"{receipt.completion_tokens:,} tokens"),
            Fact("Passages retrieved", f"{receipt.retrieved_chunks:,}"),
            *(
                Fact("Model", pin, "pin id: a digest of its whole manifest", code=True)
                for pin in receipt.models
            ),
            *(Fact("Corpus", digest, code=True) for digest in receipt.corpora),
            Fact("Appliance", f"version {receipt.runtime.appliance}, bundle {receipt.runtime.generation}"),
            Fact("llama.cpp", receipt.runtime.llama_cpp, "digest of its libraries", code=True),
        ),
    )


def _confinement(receipt: Receipt) -> Group:
    facts = receipt.confinement
    namespace = facts.network == "namespace"
    network, filtered = (
        ("empty network namespace", "and system call filter") if namespace else ("system call filter", "")
    )
    absent = (
        ("Swap", facts.swap),
        ("Core dumps", facts.core_dumps),
        ("Memory open to other processes", facts.dumpable),
    )
    return Group(
        "Confinement, tried before the cell served",
        (
            Fact("Files", f"Landlock, ABI {facts.landlock_abi}", good=facts.landlock_abi > 0),
            Fact("System calls", "filtered" if facts.seccomp else "not filtered", good=facts.seccomp),
            Fact("Kept off the network by", network, filtered, good=True),
            *(Fact(label, "yes" if value else "no", good=not value) for label, value in absent),
        ),
    )


def _erase(receipt: Receipt) -> Group:
    erase = receipt.erase
    read_back = "read back, and all zero" if erase.verified else "not read back"
    return Group(
        "Erase",
        (
            Fact("Memory of the conversation", f"{erase.bytes:,} bytes overwritten"),
            Fact("Checked", read_back, good=erase.verified),
            Fact("Text", "goes when the process exits"),
        ),
    )


def _place(record: ReceiptRecord, receipt: Receipt) -> Group:
    if not record.verified:
        logged = Fact("Place in the log", "never", "the log takes only what verifies", good=False)
    elif record.place is None:
        logged = Fact("Place in the log", "waiting", "heads are signed once a minute")
    else:
        logged = Fact("Place in the log", f"{record.place:,}", "counted from 0", good=True)
    return Group(
        "Chain and log",
        (
            logged,
            Fact("Number", f"{receipt.seq:,}", "among the client's receipts on this node"),
            Fact("The one before", receipt.prev, "SHA-256", code=True),
            Fact("This one", record.digest, "SHA-256 of what was signed", code=True),
            Fact("Signed with", record.key, "id of the node's key", code=True),
        ),
    )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"

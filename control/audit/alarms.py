"""What each kind of alarm means, and what an operator does about it."""

from __future__ import annotations

from typing import Final, NamedTuple

from control.audit.models import AlarmKind


class Advice(NamedTuple):
    """What to say about a kind of alarm.

    Attributes:
        title: The kind in a few words.
        meaning: What was seen.
        do: What to do next.
    """

    title: str
    meaning: str
    do: str


ADVICE: Final = {
    AlarmKind.RECEIPT_CHANGED: Advice(
        "A receipt came twice, with different bytes",
        "The node handed over a receipt under an id that it had used for another one. The first one stays.",
        "Take the node out of service and keep its journal. Compare both receipts with the client's copy.",
    ),
    AlarmKind.BAD_SIGNATURE: Advice(
        "A receipt does not verify",
        "Its signature is not that of the node's certified key, or it names another node. It will not be logged.",
        "Take the node out of service until you know why. Look at whether its key was replaced or its disk restored.",
    ),
    AlarmKind.BAD_SCHEMA: Advice(
        "An entry is no receipt",
        "What the node's journal holds at this position does not fit the schema of receipts.",
        "Compare the versions of node and control. If they are equal, treat the node as taken over.",
    ),
    AlarmKind.CHAIN_GAP: Advice(
        "A receipt is missing",
        "A client's receipt does not follow its last one on this node: a number was left out, repeated or rewritten.",
        "Ask the client for its receipts around this number, and compare. Keep the node's journal.",
    ),
    AlarmKind.JOURNAL_SHRUNK: Advice(
        "The node's journal became shorter",
        "It holds less than the node had handed over already: its disk was restored, replaced or cut.",
        "Ask who worked on the node. What control has is safe; what the node had not handed over may be lost.",
    ),
    AlarmKind.JOURNAL_REPLACED: Advice(
        "The node's journal was replaced",
        "Its digest is not that of the receipts that it handed over before. Its journal was read again, and what it "
        "holds now is kept as well.",
        "Treat the node as taken over, or as restored from a backup. Ask its clients to run `appliance receipt watch`.",
    ),
    AlarmKind.RECEIPTS_MISSING: Advice(
        "The node no longer has receipts that it never handed over",
        "Its journal goes on further on than control had read.",
        "Ask the clients for their receipts of that time. Keep the node's journal.",
    ),
    AlarmKind.NODE_SILENT: Advice(
        "The node is silent",
        "It has signed no heartbeat since: it is off, unreachable, or somebody keeps its receipts back.",
        "Look at the node and its connection. Clients go on being served; their receipts come when it is back.",
    ),
    AlarmKind.KEY_CHANGED: Advice(
        "The node shows another key",
        "A key differs from the one that control learned first. The new one is not accepted.",
        "If the node was installed anew, add it again under a new name. If not, treat it as taken over.",
    ),
    AlarmKind.NODE_AHEAD: Advice(
        "The node is ahead of control",
        "It accepted a bundle that this control has no record of: control was restored from a backup, or another "
        "one signs with its key.",
        "After a restore, raise the epoch. Otherwise look for who else holds the bundle key, and replace it.",
    ),
}

ON_RECEIPTS: Final = frozenset({AlarmKind.RECEIPT_CHANGED, AlarmKind.BAD_SIGNATURE, AlarmKind.CHAIN_GAP})
"""The kinds whose subject is a receipt id."""

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
    AlarmKind.DISK_FULL: Advice(
        "A disk is nearly full",
        "Less than a tenth of a file system of the node is free. A notary without room opens no sessions.",
        "Look at which (`appliance control node show`), and free some: retire models that nobody uses, or let control "
        "fetch receipts.",
    ),
    AlarmKind.CLOCK_OFF: Advice(
        "The node's clock is off",
        "It differs from control's by more than two seconds. Receipts carry the node's time.",
        "Compare both with a clock that you trust, and mend time synchronisation on the one that is wrong.",
    ),
    AlarmKind.DIGEST_FAILED: Advice(
        "A model file has other bytes than its pin",
        "The node read the file, and its digest is not the pinned one, or the file is gone. Cells refuse to load it.",
        "Look at the node's disk. If nobody worked on it, treat the node as taken over. Remove the file: control sends it again.",
    ),
    AlarmKind.NODE_UNREACHABLE: Advice(
        "The node does not answer",
        "No pass has reached it for two minutes. It serves with what it has; revocations do not reach it.",
        "Look at the node and its management network. To cut somebody off meanwhile, turn the node off.",
    ),
    AlarmKind.NODE_DRIFTED: Advice(
        "The node is not what it should be",
        "Passes reach it, and it goes on with an older bundle than the one that it was sent.",
        "`appliance control node show` names the code of the failed pass; `appliance node plan` on the node says what it lacks.",
    ),
    AlarmKind.SEATS_EXHAUSTED: Advice(
        "The node has no free seat",
        "Every seat is taken and connections wait for one. Clients are told to come again.",
        "Give the node more seats if its memory allows, shorten `cell_idle_s`, or move clients to another node.",
    ),
}

ON_RECEIPTS: Final = frozenset({AlarmKind.RECEIPT_CHANGED, AlarmKind.BAD_SIGNATURE, AlarmKind.CHAIN_GAP})
"""The kinds whose subject is a receipt id."""

"""The log of receipts, watched through the tunnel: its head must continue the last one seen, and hold the receipts that were kept.

Nothing that comes over the wire is believed: hashes are checked against heads, heads against the log's keys and the memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.client.api import Api
from appliance.core.chain import verify_chains
from appliance.core.errors import UnavailableError
from appliance.core.receipt import SignedReceipt
from appliance.core.storage import write_atomic
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import LogError
from appliance.transparency.memory import Memory
from appliance.transparency.merkle import consistency_proof, inclusion_proof
from appliance.transparency.note import Note
from appliance.transparency.proof import Continuation, Proof
from appliance.transparency.tiles import CHECKPOINT, TileReader

_NOT_AS_SIGNED: Final = (
    "ask again; if it stays so, tell the operator that the node does not serve what was signed"
)


@dataclass(frozen=True)
class Watched:
    """What was found.

    Attributes:
        seen: The head that was remembered before.
        head: The one that is remembered now.
        proven: Ids of kept receipts whose proof was verified and kept now.
        waiting: Ids of kept receipts that the log does not hold yet, or whose node has forgotten them.
        gaps: Node, and first and last number of receipts between kept ones that are not kept here.
        witnesses, cosigned: How many witnesses are known, and how many of them have cosigned the head.
    """

    seen: Checkpoint
    head: Checkpoint
    proven: tuple[str, ...]
    waiting: tuple[str, ...]
    gaps: tuple[tuple[str, int, int], ...]
    witnesses: int = 0
    cosigned: int = 0


def watch(receipts: Path, api: Api, memory: Memory, policy: Policy) -> Watched:
    """Advance the memory, verify the chains of kept receipts, and fetch the proofs that are missing.

    Args:
        receipts: Folder of `<id>.json`; a proof is kept beside its receipt as `<id>.tlog-proof`.
        api: Through the tunnel.
        memory: Of the log.
        policy: The log's keys, and those of its witnesses.

    Raises:
        LogError: A fork, a shrink, a proof that does not hold. The memory is as it was, or at a head that holds.
        ReceiptError: If kept receipts of a node are not one chain.
        UnavailableError: If the appliance does not answer or publishes no log yet.
    """
    text = api.log_file(CHECKPOINT)
    if text is None:
        raise UnavailableError("the node publishes no log yet", hint="ask again in a minute")
    note, seen = Note.parse(text), memory.seen
    size = policy.verify(note).size
    tiles = TileReader(api.log_file, size, hint=_NOT_AS_SIGNED)
    head = memory.advance(Continuation(seen.size, tuple(consistency_proof(tiles, seen.size, size)), note))
    kept = [SignedReceipt.parse_canonical(file.read_bytes()) for file in sorted(receipts.glob("*.json"))]
    gaps = tuple(verify_chains(kept))
    proven, waiting = [], []
    for signed in kept:
        file = receipts / f"{signed.receipt.id}.tlog-proof"
        if file.exists():
            continue
        place = _place(api, signed.receipt.id)
        if place is None or place >= size:
            waiting.append(signed.receipt.id)
            continue
        proof = Proof(place, tuple(inclusion_proof(tiles, place, size)), note)
        proof.verify(signed.canonical_bytes(), policy)
        write_atomic(file, proof.render(), 0o644, durable=True)
        proven.append(signed.receipt.id)
    witnesses = len(set(policy.witnesses))
    return Watched(seen, head, tuple(proven), tuple(waiting), gaps, witnesses, policy.count_witnesses(note))


def _place(api: Api, receipt_id: str) -> int | None:
    """Return where the node says that a receipt is; whether it is there is verified by whoever asks."""
    text = api.proof(receipt_id)
    if text is None:
        return None
    try:
        return Proof.parse(text).index
    except LogError as error:
        raise LogError("the node's proof has not the form of one", field="proof") from error


def render_json(watched: Watched) -> str:
    """Return it as one JSON object."""
    return json.dumps(
        {
            "ok": True,
            "log": watched.head.origin,
            "seen": watched.seen.size,
            "size": watched.head.size,
            "witnesses": watched.witnesses,
            "cosigned": watched.cosigned,
            "proven": watched.proven,
            "waiting": watched.waiting,
            "gaps": [{"node": node, "first": first, "last": last} for node, first, last in watched.gaps],
        }
    )


def render_lines(watched: Watched) -> list[str]:
    """Return it for people."""
    seen, size = watched.seen.size, watched.head.size
    lines = [
        f"The log goes on: {watched.head.origin} is "
        + (f"from {seen} to {size} entries." if size > seen else f"at {size} entries, as before.")
    ]
    if watched.witnesses:
        lines.append(f"{watched.cosigned} of {watched.witnesses} witnesses have seen no other.")
    if watched.proven:
        lines.append(f"{len(watched.proven)} receipts are proven to be in it; the proofs are beside them.")
    if watched.waiting:
        lines.append(f"{len(watched.waiting)} receipts are not in it yet; ask again in a minute.")
    lines += [
        f"Numbers {first} to {last} of {node} are not kept here: has another device of yours kept them?"
        for node, first, last in watched.gaps
    ]
    return lines

"""Writes the vectors of docs/spec/log-v1.md: `python tests/vectors/log/generate.py`, in tests/unit/transparency.

The keys are test keys. ML-DSA signs with fresh chance, so a second run writes other signatures over the same texts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "unit" / "transparency"))

from transparency_world import NOW, ORIGIN, Tree, mth, signer, witness

from appliance.transparency.checkpoint import Checkpoint, Cosigner, LogSigner
from appliance.transparency.merkle import consistency_proof, inclusion_proof
from appliance.transparency.note import Note, encode
from appliance.transparency.proof import Proof

RECEIPT = (FOLDER.parent / "receipts" / "valid.txt").read_bytes().partition(b"\n\n")[2]
ENTRIES = [f"another entry, {number}".encode() for number in range(10)]
ENTRIES.insert(4, RECEIPT)
ALICE, BOB = witness("alice.example/w"), witness("bob.example/w")
NEW = [*ENTRIES, *(f"a later entry, {number}".encode() for number in range(6))]


def head(entries: Sequence[bytes], log: LogSigner, *witnesses: Cosigner) -> Note:
    """Return the signed head of a tree."""
    note = log.sign(len(entries), mth(list(entries)), NOW)
    checkpoint = Checkpoint.parse(note.text)
    return replace(note, signatures=(*note.signatures, *(one.cosign(checkpoint, NOW) for one in witnesses)))


def proof(entries: Sequence[bytes], index: int, note: Note) -> Proof:
    """Return the proof of an entry."""
    return Proof(index, tuple(inclusion_proof(Tree(list(entries)), index, len(entries))), note)


def proofs() -> dict[str, tuple[str, str, bytes]]:
    """Return name, expected outcome, witnesses asked for, and file of each vector about an entry."""
    honest = proof(ENTRIES, 4, head(ENTRIES, signer()))
    cosigned = proof(ENTRIES, 4, head(ENTRIES, signer(), ALICE, BOB))
    by_alice = proof(ENTRIES, 4, head(ENTRIES, signer(), ALICE))
    text = honest.render()
    edited = [*ENTRIES[:4], RECEIPT.replace(b'"seq":1', b'"seq":2'), *ENTRIES[5:]]
    swapped = [*ENTRIES[:3], ENTRIES[4], ENTRIES[3], *ENTRIES[5:]]
    thief = signer(ORIGIN, "thief")
    only_ed25519 = replace(honest.checkpoint, signatures=honest.checkpoint.signatures[:1])
    only_mldsa44 = replace(honest.checkpoint, signatures=honest.checkpoint.signatures[1:])
    elsewhere = head(ENTRIES, signer("elsewhere.example/log"))
    forged = replace(honest.checkpoint, text=honest.checkpoint.text.replace("\n11\n", "\n12\n"))
    both = f"{ALICE.verifier_key.render()} {BOB.verifier_key.render()}"
    return {
        "valid": ("valid", "", text),
        "valid-with-two-witnesses": ("valid", both, cosigned.render()),
        "cosignatures-of-strangers": ("valid", "", cosigned.render()),
        "entry-edited": ("log_inclusion", "", proof(edited, 4, head(edited, signer())).render()),
        "entry-left-out": (
            "log_inclusion",
            "",
            proof([*ENTRIES[:4], *ENTRIES[5:]], 4, head([*ENTRIES[:4], *ENTRIES[5:]], signer())).render(),
        ),
        "entries-swapped": ("log_inclusion", "", proof(swapped, 4, head(swapped, signer())).render()),
        "place-changed": ("log_inclusion", "", replace(honest, index=5).render()),
        "place-beyond-the-tree": ("log_inclusion", "", replace(honest, index=11).render()),
        "hash-left-out": ("log_inclusion", "", replace(honest, hashes=honest.hashes[:-1]).render()),
        "hash-added": ("log_inclusion", "", replace(honest, hashes=(*honest.hashes, bytes(32))).render()),
        "hash-changed": (
            "log_inclusion",
            "",
            replace(honest, hashes=(bytes(32), *honest.hashes[1:])).render(),
        ),
        "another-logs-checkpoint": ("log_other", "", replace(honest, checkpoint=elsewhere).render()),
        "signed-by-a-thief": ("log_signature", "", proof(ENTRIES, 4, head(ENTRIES, thief)).render()),
        "ed25519-alone": ("log_signature", "", replace(honest, checkpoint=only_ed25519).render()),
        "ml-dsa-44-alone": ("log_signature", "", replace(honest, checkpoint=only_mldsa44).render()),
        "size-changed": ("log_signature", "", replace(honest, checkpoint=forged).render()),
        "a-witness-is-missing": ("log_witnesses", both, by_alice.render()),
        "no-witness": ("log_witnesses", both, text),
        "second-spelling-of-a-number": ("log_format", "", text.replace(b"index 4", b"index 04")),
        "second-spelling-of-base64": ("log_format", "", _respelled(text)),
        "carriage-returns": ("log_format", "", text.replace(b"\n", b"\r\n")),
        "a-byte-behind-the-end": ("log_format", "", text + b"\n"),
        "a-line-of-extension": ("log_format", "", text.replace(b"=\n\n\xe2", b"=\nmore\n\n\xe2")),
        "cut-off": ("log_format", "", text[:-1]),
        "another-version": ("log_format", "", text.replace(b"@v1", b"@v2")),
    }


def consistencies() -> dict[str, tuple[str, str, bytes]]:
    """Return name, expected outcome, root seen before, and request to a witness of each vector about two heads."""
    old, new, seen = len(ENTRIES), len(NEW), encode(mth(ENTRIES))
    edited = [b"rewritten", *NEW[1:]]
    shorter = [*NEW[:3], *NEW[4:]]
    reordered = [NEW[1], NEW[0], *NEW[2:]]
    honest = consistency_proof(Tree(NEW), old, new)

    def request(entries: list[bytes], hashes: Sequence[bytes], size: int = old) -> bytes:
        lines = [f"old {size}", *map(encode, hashes), ""]
        return "".join(f"{line}\n" for line in lines).encode() + head(entries, signer()).render()

    return {
        "continues": ("valid", seen, request(NEW, honest)),
        "the-same-again": ("valid", seen, request(ENTRIES, [])),
        "fork": ("log_consistency", seen, request(edited, consistency_proof(Tree(edited), old, new))),
        "entry-dropped": (
            "log_consistency",
            seen,
            request(shorter, consistency_proof(Tree(shorter), old, len(shorter))),
        ),
        "entries-reordered": (
            "log_consistency",
            seen,
            request(reordered, consistency_proof(Tree(reordered), old, new)),
        ),
        "shrunk": ("log_consistency", seen, request(ENTRIES[:9], [])),
        "another-root-of-the-same-size": ("log_consistency", seen, request(edited[:old], [])),
        "proof-left-out": ("log_consistency", seen, request(NEW, [])),
        "proof-of-another-size": (
            "log_consistency",
            seen,
            request(NEW, consistency_proof(Tree(NEW), old - 1, new)),
        ),
    }


def _respelled(text: bytes) -> bytes:
    """Return the proof with bits set that base64 does not use."""
    line = text.split(b"\n")[2]
    return text.replace(line, line[:-2] + bytes((line[-2] + 1,)) + b"=")


def write() -> None:
    """Write all vectors."""
    keys = " ".join(key.render() for key in signer().verifier_keys)
    for name, (expect, witnesses, data) in proofs().items():
        lines = f"kind: proof\nexpect: {expect}\nlog: {keys}\nwitnesses: {witnesses}\nentry: {encode(RECEIPT)}\n\n"
        (FOLDER / f"{name}.txt").write_bytes(lines.encode() + data)
    for name, (expect, root, data) in consistencies().items():
        lines = f"kind: consistency\nexpect: {expect}\nlog: {keys}\nseen: {root}\n\n"
        (FOLDER / f"{name}.txt").write_bytes(lines.encode() + data)


if __name__ == "__main__":
    write()

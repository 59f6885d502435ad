"""A tree in memory by the definitions of RFC 6962, and a log's keys that are the same in every run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from appliance.transparency.checkpoint import Cosigner, LogSigner, Policy

ORIGIN = "receipts.example/log"
NOW = 1_790_000_000


def seed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def signer(origin: str = ORIGIN, keys: str = "log") -> LogSigner:
    ed25519 = Ed25519PrivateKey.from_private_bytes(seed(f"{keys} ed25519"))
    return LogSigner(origin, ed25519, MLDSA44PrivateKey.from_seed_bytes(seed(f"{keys} mldsa44")))


def witness(name: str) -> Cosigner:
    return Cosigner(name, MLDSA44PrivateKey.from_seed_bytes(seed(name)))


def policy(*witnesses: Cosigner, quorum: int = 0) -> Policy:
    keys = signer().verifier_keys
    return Policy(*keys, tuple(cosigner.verifier_key for cosigner in witnesses), quorum)


def mth(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(entries[:split]) + mth(entries[split:])).digest()


@dataclass
class Tree:
    """Complete subtrees over entries, each computed from its entries."""

    entries: list[bytes]

    def subtree(self, level: int, index: int) -> bytes:
        covered = self.entries[index << level : (index + 1) << level]
        assert len(covered) == 1 << level, "not a complete subtree"
        return mth(covered)


def entries(count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(count)]

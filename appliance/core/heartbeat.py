"""The heartbeat: what a node's notary says about its journal when control asks, signed, so that silence and a replaced past show.

Control chooses the nonce, so an old one cannot be shown again.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import signing
from appliance.core.names import Digest, Hex128, Name, Timestamp
from appliance.core.receipt import Count, Signature
from appliance.core.schema import Closed


class Heartbeat(Closed):
    """The state of a journal.

    Attributes:
        nonce: As control asked.
        node, boot: Who, and in which run of the notary.
        at: Wall clock of the node.
        receipts: How many it has written, ever.
        open: Sessions that are open.
        past: Over all of these receipts, see `extend_past`.
    """

    v: Literal[1] = 1
    nonce: Hex128
    node: Name
    boot: Hex128
    at: Timestamp
    receipts: Count
    open: Count
    past: Digest


class SignedHeartbeat(Closed):
    """With the signature of the node's receipt key for `Purpose.HEARTBEAT`."""

    heartbeat: Heartbeat
    signature: Signature


def sign_heartbeat(heartbeat: Heartbeat, key: Ed25519PrivateKey) -> SignedHeartbeat:
    """Sign a heartbeat with the node's receipt key."""
    signature = signing.sign(key, signing.Purpose.HEARTBEAT, heartbeat.canonical_bytes())
    return SignedHeartbeat(heartbeat=heartbeat, signature=signature)


def verify_heartbeat(signed: SignedHeartbeat, public_key: str) -> None:
    """Check the signature; return None or raise RefusedError."""
    text = signed.heartbeat.canonical_bytes()
    signing.verify(public_key, signing.Purpose.HEARTBEAT, text, signed.signature)


def extend_past(past: str, receipt: str) -> str:
    """Return the digest over a journal's receipts after one more: SHA-256 of the one before and the receipt's digest.

    Args:
        past: Before it, as hexadecimal digits; 64 zeros for the empty journal.
        receipt: SHA-256 of the receipt's canonical bytes, as hexadecimal digits.
    """
    return hashlib.sha256(bytes.fromhex(past) + bytes.fromhex(receipt)).hexdigest()

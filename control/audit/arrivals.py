"""What can be said of a receipt without the database: whether it is one, what it says, and whether its signature is the node's.

Most of the time of an admission goes here. Nothing of Django is imported, so that a process that does nothing else is small.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.core import canonical
from appliance.core.errors import ReceiptError, RefusedError
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import CertifiedKeys, SignedReceipt


@dataclass(frozen=True, slots=True)
class Arrival:
    """A receipt as a node handed it over.

    Attributes:
        id, client, boot, seq, prev: As in `Receipt`.
        content: Its canonical text.
        digest: SHA-256 of that.
        key, signature: As in `SignedReceipt`.
        verified: The signature is that of the node's certified key.
    """

    id: str
    client: str
    boot: str
    seq: int
    prev: str
    content: str
    digest: str
    key: str
    signature: str
    verified: bool

    @property
    def identity(self) -> tuple[str, str]:
        """What is equal when a receipt comes again."""
        return self.digest, self.signature


@dataclass(frozen=True, slots=True)
class Damaged:
    """What a node handed over in the place of a receipt. `digest` is what the notary computed of it."""

    digest: str


def look_at_all(texts: Sequence[Any], node: str, keys: CertifiedKeys) -> list[Arrival | Damaged]:
    """Look at what a node handed over.

    Args:
        texts: Each the canonical text of a signed receipt, if the node is honest.
        node: Its name.
        keys: That may have signed.
    """
    return [_look_at_text(text, node, keys) for text in texts]


def _look_at_text(text: Any, node: str, keys: CertifiedKeys) -> Arrival | Damaged:
    try:
        signed = SignedReceipt.parse_canonical(text.encode("utf-8"))
    except (RefusedError, ValueError, AttributeError):
        return Damaged(_digest_of(text))
    return look_at(signed, node, keys)


def look_at(signed: SignedReceipt, node: str, keys: CertifiedKeys) -> Arrival:
    """Look at a receipt that the node of this name handed over."""
    receipt = signed.receipt
    content = receipt.canonical_bytes()
    verified = receipt.node == node
    try:
        keys.verify(node=receipt.node, key=signed.key, content=content, signature=signed.signature)
    except ReceiptError:
        verified = False
    return Arrival(
        id=receipt.id,
        client=receipt.client,
        boot=receipt.boot,
        seq=receipt.seq,
        prev=receipt.prev,
        content=content.decode("utf-8"),
        digest=hashlib.sha256(content).hexdigest(),
        key=signed.key,
        signature=signed.signature,
        verified=verified,
    )


def _digest_of(text: Any) -> str:
    try:
        return hashlib.sha256(canonical.encode(json.loads(text)["receipt"])).hexdigest()
    except (RefusedError, ValueError, KeyError, TypeError, RecursionError):
        return ZERO_DIGEST

"""The receipt: what a client takes home from a session. It holds no content, by type.

Normative text: docs/spec/receipt-v1.md. The cell hands the notary a `Draft`; the notary makes a `Receipt` of it and
signs; anyone verifies a `SignedReceipt` offline with the `Keyring` that came with the client's configuration.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, StringConstraints

from appliance.core import signing
from appliance.core.errors import ReceiptError, RefusedError
from appliance.core.names import Digest, Hex128, Key32, Name, Timestamp, Version
from appliance.core.schema import Closed

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class End(StrEnum):
    """Why a session ended."""

    ONE_SHOT = "one_shot"  # a request without a session id was answered
    DELETED = "deleted"  # the client deleted the session
    EXPIRED = "expired"  # idle or absolute time to live
    DISCONNECTED = "disconnected"  # the client went away from a one-shot session
    REVOKED = "revoked"  # the device or client was cut off
    DRAINED = "drained"  # the cell was asked to stop
    FAILED = "failed"  # the engine gave up on the request
    CRASHED = "crashed"  # the cell died without a word; written by the notary alone


# From here to `SignedReceipt` the fields are declared in canonical order: a notary encodes thousands of these a second
# (`schema.is_canonical_as_declared`).


class Confinement(Closed):
    """What kept the cell confined; tried before the cell ran.

    Attributes:
        landlock_abi: Version of Landlock that restricts its file access (0: none).
        seccomp: A system call filter is in force.
        network: What keeps it off the network.
        core_dumps, dumpable, swap: All false, or the cell would not have served.
    """

    core_dumps: bool
    dumpable: bool
    landlock_abi: Annotated[int, Field(ge=0, le=255)]
    network: Literal["namespace", "seccomp"]
    seccomp: bool
    swap: bool


class RuntimeFacts(Closed):
    """What ran: our version, the digest of the llama.cpp libraries, the bundle generation."""

    appliance: Version
    generation: Count
    llama_cpp: Digest


class Erase(Closed):
    """What was overwritten at the session's end.

    Attributes:
        bytes: KV bytes overwritten.
        verified: They were read back and found zero.
        text: Text goes with the process: a running CPython cannot overwrite its strings.
    """

    bytes: Count
    text: Literal["at_exit"] = "at_exit"
    verified: bool


class Opening(Closed):
    """What the cell tells the notary before the first byte of a session's first answer."""

    confinement: Confinement
    models: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=16)]
    runtime: RuntimeFacts
    session: Hex128


class Draft(Closed):
    """What the cell tells the notary when a session ends. Enums, integers and digests of public things only."""

    completion_tokens: Count
    corpora: Annotated[tuple[Digest, ...], Field(max_length=64)]
    end: End
    erase: Erase
    prompt_tokens: Count
    requests: Count
    retrieved_chunks: Count


class Receipt(Closed):
    """One session of one client.

    Attributes:
        id: Receipt id.
        session: Session id.
        client: Pseudonym (see `pseudonym`).
        seq: The client's receipts on this node, counted from 1 without gaps.
        prev: SHA-256 of the canonical bytes of the client's receipt before this one; 64 zeros for the first.
        node, boot: Where, and in which run of the notary.
        opened_at, ended_at: Wall clock of the node; a hint, `seq` is the truth.

    The others are what the cell said at both ends (`Opening`, `Draft`).
    """

    boot: Hex128
    client: Digest
    completion_tokens: Count
    confinement: Confinement
    corpora: Annotated[tuple[Digest, ...], Field(max_length=64)]
    end: End
    ended_at: Timestamp
    erase: Erase
    id: Hex128
    models: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=16)]
    node: Name
    opened_at: Timestamp
    prev: Digest
    prompt_tokens: Count
    requests: Count
    retrieved_chunks: Count
    runtime: RuntimeFacts
    seq: Annotated[int, Field(ge=1, le=2**53 - 1)]
    session: Hex128
    v: Literal[1] = 1

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes; the next receipt's `prev`."""
        return hashlib.sha256(self.canonical_bytes()).hexdigest()


class SignedReceipt(Closed):
    """A receipt with the node's signature.

    Attributes:
        key: Id of the node key that signed (`signing.key_id`).
        signature: Ed25519 over the receipt's canonical bytes for `Purpose.RECEIPT`.
    """

    key: KeyId
    receipt: Receipt
    signature: Signature


class NodeKey(Closed):
    """A node's receipt key as control certified it."""

    node: Name
    public_key: Key32


class KeyringBody(Closed):
    """The node keys that control vouches for."""

    v: Literal[1] = 1
    nodes: Annotated[tuple[NodeKey, ...], Field(max_length=4096)]


class Keyring(Closed):
    """The keys that verify receipts, as they come with a client's configuration.

    Attributes:
        log_key: Control's log key, the root of trust for receipts (Ed25519, canonical base64).
        body: The node keys.
        signature: The log key's signature over the body's canonical bytes for `Purpose.KEYRING`.
    """

    log_key: Key32
    body: KeyringBody
    signature: Signature


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey) -> SignedReceipt:
    """Sign a receipt with the node's key."""
    public = signing.public_text(key)
    signature = signing.sign(key, signing.Purpose.RECEIPT, receipt.canonical_bytes())
    return SignedReceipt(receipt=receipt, key=signing.key_id(public), signature=signature)


class ReceiptSigner:
    """Signs many receipts, each encoded once.

    Args:
        key: The node's.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._head = f'{{"key":"{signing.key_id(signing.public_text(key))}","receipt":'.encode("ascii")

    def sign(self, content: bytes) -> bytes:
        """Return the canonical bytes of a `SignedReceipt`, given those of its receipt."""
        signature = signing.sign(self._key, signing.Purpose.RECEIPT, content)
        return b"".join((self._head, content, b',"signature":"', signature.encode("ascii"), b'"}'))


def make_keyring(nodes: tuple[NodeKey, ...], log_key: Ed25519PrivateKey) -> Keyring:
    """Certify node keys with control's log key."""
    body = KeyringBody(nodes=tuple(sorted(nodes, key=lambda n: (n.node, n.public_key))))
    signature = signing.sign(log_key, signing.Purpose.KEYRING, body.canonical_bytes())
    return Keyring(log_key=signing.public_text(log_key), body=body, signature=signature)


@dataclass(frozen=True)
class CertifiedKeys:
    """The keys of a keyring whose certification was checked, once for any number of receipts. `certify` makes it.

    Attributes:
        by_id: Id of a key to the entries of that id.
    """

    by_id: Mapping[str, tuple[NodeKey, ...]]

    def verify(self, *, node: str, key: str, content: bytes, signature: str) -> None:
        """Check that a node signed a receipt; return None or raise.

        1. A key of this id is certified for the node that the receipt names: a key of another node does not count.
        2. The signature verifies over the canonical bytes.

        Args:
            node: That the receipt names.
            key, signature: As in `SignedReceipt`.
            content: The receipt's canonical bytes.

        Raises:
            ReceiptError: Naming the step that failed.
        """
        keys = self.by_id.get(key)
        if keys is None:
            raise ReceiptError("signed with a key that control has not certified", field="key")
        named = [certified for certified in keys if certified.node == node]
        if not named:
            raise ReceiptError("signed with the key of another node", field="receipt.node")
        try:
            signing.verify(named[0].public_key, signing.Purpose.RECEIPT, content, signature)
        except RefusedError as refused:
            raise ReceiptError("the signature does not verify", field="signature") from refused


def certify(keyring: Keyring, *, log_key: str | None = None) -> CertifiedKeys:
    """Check a keyring and return its keys.

    Args:
        keyring: The keys that control vouches for.
        log_key: The log key that is trusted. None only where the keyring itself was kept from the client's
            configuration: one that came with the receipt could have been signed by anybody.

    Raises:
        ReceiptError: If its log key is not the trusted one, or did not sign it.
    """
    if log_key is not None and keyring.log_key != log_key:
        raise ReceiptError("the keys are certified by another log key", field="keyring.log_key")
    try:
        signing.verify(
            keyring.log_key, signing.Purpose.KEYRING, keyring.body.canonical_bytes(), keyring.signature
        )
    except RefusedError as refused:
        raise ReceiptError(
            "the keys are not certified by the log key", field="keyring.signature"
        ) from refused
    by_id: dict[str, tuple[NodeKey, ...]] = {}
    for node in keyring.body.nodes:
        name = signing.key_id(node.public_key)
        by_id[name] = (*by_id.get(name, ()), node)
    return CertifiedKeys(by_id)


def verify_receipt(signed: SignedReceipt, keyring: Keyring, *, log_key: str | None = None) -> None:
    """Check a receipt offline: `certify`, then `CertifiedKeys.verify`; return None or raise.

    Args:
        signed: The receipt.
        keyring, log_key: As for `certify`.

    Raises:
        ReceiptError: Naming the step that failed.
    """
    certify(keyring, log_key=log_key).verify(
        node=signed.receipt.node,
        key=signed.key,
        content=signed.receipt.canonical_bytes(),
        signature=signed.signature,
    )


def pseudonym(key: bytes, client: str) -> str:
    """Return the name that receipts use for a client: HMAC-SHA256 of its name under the client's pseudonym key.

    The client holds the key too, so it can check that a receipt is about itself and nobody else can.

    Args:
        key: 32 random bytes, made when the client was created.
        client: The client's name.
    """
    return hmac.new(key, b"sovereign-appliance/pseudonym/v1\n" + client.encode("ascii"), "sha256").hexdigest()


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 text in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

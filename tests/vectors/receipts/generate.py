"""Writes the vectors of docs/spec/receipt-v1.md into this folder. The keys are not secret: they are SHA-256 of a word.

    python tests/vectors/receipts/generate.py

A vector is a text: `name: value` lines, an empty line, and then, to the last byte, a receipt as it would be in a file.
`expect` is `valid` or the refusal; `log-key` is what the client trusts; `keyring` is what it was given.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import signing
from appliance.core.names import ZERO_DIGEST
from appliance.core.receipt import (
    Confinement,
    End,
    Erase,
    Keyring,
    NodeKey,
    Receipt,
    RuntimeFacts,
    SignedReceipt,
    make_keyring,
    pseudonym,
    sign_receipt,
)

NOT_CANONICAL = "$: not canonical JSON: a second spelling of the value"


def key(word: str) -> Ed25519PrivateKey:
    """Return the test key of a word."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(word.encode()).digest())


def digest(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


NODE, OTHER_NODE, STRANGER = key("node-1"), key("node-2"), key("stranger")
LOG, OTHER_LOG = key("log"), key("another log")
CERTIFIED = (
    NodeKey(node="node-1", public_key=signing.public_text(NODE)),
    NodeKey(node="node-2", public_key=signing.public_text(OTHER_NODE)),
)
KEYRING = make_keyring(CERTIFIED, LOG)
RECEIPT = Receipt(
    id=digest("receipt")[:32],
    session=digest("session")[:32],
    client=pseudonym(bytes(range(32)), "acme"),
    seq=1,
    prev=ZERO_DIGEST,
    node="node-1",
    boot=digest("boot")[:32],
    opened_at="2026-01-02T03:04:05.006Z",
    ended_at="2026-01-02T03:04:07.089Z",
    end=End.ONE_SHOT,
    requests=1,
    prompt_tokens=12,
    completion_tokens=34,
    retrieved_chunks=0,
    corpora=(),
    models=(digest("model"),),
    runtime=RuntimeFacts(appliance="0.1.0", llama_cpp=digest("llama.cpp"), generation=7),
    confinement=Confinement(
        landlock_abi=7, seccomp=True, network="namespace", core_dumps=False, dumpable=False, swap=False
    ),
    erase=Erase(bytes=24576, verified=True),
)
SIGNED = sign_receipt(RECEIPT, NODE)


def _changed(signed: SignedReceipt, **fields: object) -> bytes:
    return signed.model_copy(update={"receipt": signed.receipt.model_copy(update=fields)}).canonical_bytes()


def _other_node() -> bytes:
    return sign_receipt(RECEIPT, OTHER_NODE).canonical_bytes()


def _relabelled() -> bytes:
    """A stolen key of node 2 that signs as node 1 under node 1's key id."""
    forged = sign_receipt(RECEIPT, OTHER_NODE)
    return forged.model_copy(update={"key": SIGNED.key}).canonical_bytes()


def _unknown_field() -> bytes:
    value = SIGNED.model_dump(mode="json")
    value["receipt"]["note"] = "x"
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _repeated_key() -> bytes:
    return SIGNED.canonical_bytes().replace(b'"seq":1,', b'"seq":2,"seq":1,')


def vectors() -> dict[str, tuple[str, Keyring, bytes]]:
    """Return name -> (expected, keyring, bytes)."""
    good = SIGNED.canonical_bytes()
    second = sign_receipt(RECEIPT.model_copy(update={"seq": 2, "prev": RECEIPT.digest}), NODE)
    refused = "signature: the signature does not verify"
    return {
        "valid": ("valid", KEYRING, good),
        "valid-second-of-chain": ("valid", KEYRING, second.canonical_bytes()),
        "valid-key-of-two-nodes": ("valid", make_keyring((*CERTIFIED, _renamed()), LOG), good),
        "changed-byte": (refused, KEYRING, _changed(SIGNED, prompt_tokens=13)),
        "moved-to-another-client": (refused, KEYRING, _changed(SIGNED, client=digest("bolt"))),
        "renumbered": (refused, KEYRING, _changed(SIGNED, seq=2)),
        "other-nodes-key": ("receipt.node: signed with the key of another node", KEYRING, _other_node()),
        "other-nodes-key-relabelled": (refused, KEYRING, _relabelled()),
        "uncertified-key": (
            "key: signed with a key that control has not certified",
            KEYRING,
            sign_receipt(RECEIPT, STRANGER).canonical_bytes(),
        ),
        "second-spelling": (NOT_CANONICAL, KEYRING, good.replace(b'"seq":1,', b'"seq": 1,')),
        "second-spelling-escape": (NOT_CANONICAL, KEYRING, good.replace(b"one_shot", b"one\\u005fshot")),
        # The signature is over the same value as ever; only the file says it in another way.
        "second-spelling-of-the-version": (NOT_CANONICAL, KEYRING, good.replace(b'"v":1}', b'"v":true}')),
        "version-left-out": (NOT_CANONICAL, KEYRING, good.replace(b',"v":1}', b"}")),
        "erase-text-left-out": (NOT_CANONICAL, KEYRING, good.replace(b'"text":"at_exit",', b"")),
        "repeated-key": (NOT_CANONICAL, KEYRING, _repeated_key()),
        "floating-point": (
            "$: not canonical JSON: it does not parse",
            KEYRING,
            good.replace(b'"seq":1,', b'"seq":1.0,'),
        ),
        "unknown-field": ("receipt.note: Extra inputs are not permitted", KEYRING, _unknown_field()),
        "trailing-newline": (NOT_CANONICAL, KEYRING, good + b"\n"),
        "trailing-data": ("$: not canonical JSON: it does not parse", KEYRING, good + b"{}"),
        "truncated": ("$: not canonical JSON: it does not parse", KEYRING, good[:-1]),
        "keyring-of-another-log-key": (
            "keyring.log_key: the keys are certified by another log key",
            make_keyring(CERTIFIED, OTHER_LOG),
            good,
        ),
        "keyring-with-a-key-added": (
            "keyring.signature: the keys are not certified by the log key",
            KEYRING.model_copy(update={"body": make_keyring((*CERTIFIED, _stranger()), OTHER_LOG).body}),
            sign_receipt(RECEIPT, STRANGER).canonical_bytes(),
        ),
    }


def _stranger() -> NodeKey:
    return NodeKey(node="node-1", public_key=signing.public_text(STRANGER))


def _renamed() -> NodeKey:
    """Node 1 under the name that it had before, which comes first in the keyring."""
    return NodeKey(node="a-node", public_key=signing.public_text(NODE))


def render(expected: str, keyring: Keyring, receipt: bytes) -> bytes:
    """Return the vector's text."""
    header = {
        "expect": expected,
        "log-key": signing.public_text(LOG),
        "keyring": keyring.canonical_bytes().decode(),
    }
    return "".join(f"{name}: {value}\n" for name, value in header.items()).encode() + b"\n" + receipt


def main() -> None:
    for name, vector in vectors().items():
        Path(__file__).with_name(f"{name}.txt").write_bytes(render(*vector))


if __name__ == "__main__":
    main()

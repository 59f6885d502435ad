"""Verify a receipt and its proof offline, with nobody's code but this page and the library `cryptography`.

    python3 verify_receipt.py receipt.json --root KEY --keyring keyring.json
                              [--proof receipt.tlog-proof --log log.vkey [--witness FILE …]]

KEY is the root key of your configuration, log.vkey the two lines with the log's keys, a witness's FILE its one line. Take them
from where you got your configuration, never from where you got the receipt. Every witness that is named must have cosigned.
Exit status 0 and "valid", or 1 and the step that failed (docs/spec/receipt-v1.md section 5, docs/spec/log-v1.md section 8).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

# The closed schema of docs/spec/receipt-v1.md section 2: patterns for texts, ranges for numbers, item and length for lists.
HEX16, HEX32, HEX64, COUNT = "[0-9a-f]{16}", "[0-9a-f]{32}", "[0-9a-f]{64}", range(2**53)
NAME, KEY, SIGNATURE = "(?=.{1,32}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", "[A-Za-z0-9+/]{43}=", "[A-Za-z0-9+/]{86}=="
TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z"
SCHEMA = {
    "key": HEX16,
    "signature": SIGNATURE,
    "receipt": {
        "v": range(1, 2),
        "id": HEX32,
        "session": HEX32,
        "client": HEX64,
        "seq": range(1, 2**53),
        "prev": HEX64,
        "node": NAME,
        "boot": HEX32,
        "opened_at": TIME,
        "ended_at": TIME,
        "end": "one_shot|deleted|expired|disconnected|revoked|drained|failed|crashed",
        "requests": COUNT,
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "retrieved_chunks": COUNT,
        "corpora": (HEX64, range(65)),
        "models": (HEX64, range(1, 17)),
        "runtime": {"appliance": "[0-9]{1,5}([.][0-9]{1,5}){1,3}", "llama_cpp": HEX64, "generation": COUNT},
        "confinement": {
            "landlock_abi": range(256),
            "seccomp": bool,
            "network": "namespace|seccomp",
            "core_dumps": bool,
            "dumpable": bool,
            "swap": bool,
        },
        "erase": {"bytes": COUNT, "verified": bool, "text": "at_exit"},
    },
}
KEYRING = {
    "log_key": KEY,
    "signature": SIGNATURE,
    "body": {"v": range(1, 2), "nodes": ({"node": NAME, "public_key": KEY}, range(4097))},
}


class Refused(Exception):  # noqa: N818 - it is what a verifier says
    """A step that failed."""


class Key(NamedTuple):
    """Of a log or a witness: name, four bytes of identity, kind (1 Ed25519, 6 ML-DSA-44), public key."""

    name: str
    identity: bytes
    kind: int
    public: bytes


def refuse(step: str) -> NoReturn:
    """Stop here."""
    raise Refused(step)


def unbase64(text: str, step: str) -> bytes:
    """Decode base64; refuse a second spelling of the same bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        refuse(step)
    return data if base64.b64encode(data).decode() == text else refuse(step)


def canonical(value: Any) -> bytes:
    """Return the one spelling of a value (RFC 8785 without floating-point numbers)."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def framed(purpose: str, message: bytes) -> bytes:
    """Return what our Ed25519 keys sign (OpenSSH PROTOCOL.sshsig)."""
    parts = f"sovereign-appliance/{purpose}/v1".encode(), b"", b"sha512", hashlib.sha512(message).digest()
    return b"SSHSIG" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def check(public: bytes, signature: bytes, message: bytes, step: str) -> None:
    """Verify an Ed25519 signature (RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (ValueError, InvalidSignature):
        refuse(step)


def fits(value: Any, shape: Any) -> bool:
    """Whether a decoded value has exactly the fields of the schema, and they what they may hold."""
    if isinstance(shape, dict):
        return (
            isinstance(value, dict)
            and value.keys() == shape.keys()
            and all(fits(value[k], shape[k]) for k in shape)
        )
    if isinstance(shape, tuple):
        item, length = shape
        return isinstance(value, list) and len(value) in length and all(fits(one, item) for one in value)
    if isinstance(shape, str):
        return isinstance(value, str) and re.fullmatch(shape, value) is not None
    return type(value) is bool if shape is bool else type(value) is int and value in shape


def verify_receipt(receipt: bytes, keyring: Any, root: str) -> None:
    """Check that a node signed the receipt, with a key that the root key certifies for this very node."""
    try:
        signed = json.loads(receipt, parse_float=lambda _: refuse("receipt_format"))
        if canonical(signed) != receipt or not fits(signed, SCHEMA):
            refuse("receipt_format")
    except (ValueError, RecursionError):
        refuse("receipt_format")
    if not isinstance(keyring, dict) or keyring.get("log_key") != root:
        refuse("keyring_root")
    if not fits(keyring, KEYRING):
        refuse("keyring_format")
    publics = [
        (node["node"], unbase64(node["public_key"], "keyring_format")) for node in keyring["body"]["nodes"]
    ]
    message = framed("keyring", canonical(keyring["body"]))
    made = unbase64(keyring["signature"], "keyring_signature")
    check(unbase64(root, "keyring_root"), made, message, "keyring_signature")
    certified = [pair for pair in publics if hashlib.sha256(pair[1]).hexdigest()[:16] == signed["key"]]
    if not certified:
        refuse("receipt_key")
    named = [public for name, public in certified if name == signed["receipt"]["node"]]
    if not named:
        refuse("receipt_node")
    message = framed("receipt", canonical(signed["receipt"]))
    check(named[0], unbase64(signed["signature"], "receipt_signature"), message, "receipt_signature")


def read_key(line: str) -> Key:
    """Read the key of a log or a witness (c2sp.org/signed-note)."""
    name, _, rest = line.partition("+")
    identity, _, encoded = rest.partition("+")
    data = unbase64(encoded, "log_key")
    expected = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    if not data or identity != expected.hex():
        refuse("log_key")
    return Key(name, expected, data[0], data[1:])


def read_proof(data: bytes) -> tuple[int, list[bytes], str, list[tuple[str, bytes, bytes]]]:
    """Return place, hashes, text of the checkpoint and signatures: name, identity, bytes (c2sp.org/tlog-proof)."""
    try:
        head, separator, note = data.decode().partition("\n\n")
    except UnicodeDecodeError:
        refuse("log_format")
    text, second, rest = note.rpartition("\n\n")
    lines, signed = head.split("\n"), rest.split("\n")
    place = re.fullmatch("index (0|[1-9][0-9]{0,18})", lines[1]) if len(lines) > 1 else None
    if not separator or not second or lines[0] != "c2sp.org/tlog-proof@v1" or not place or signed[-1]:
        refuse("log_format")
    hashes = [unbase64(line, "log_format") for line in lines[2:]]
    signatures = []
    for line in signed[:-1]:
        found = re.fullmatch("\u2014 ([^\\s+]+) (\\S+)", line) or refuse("log_format")
        made = unbase64(found[2], "log_format")
        signatures.append((found[1], made[:4], made[4:]))
    if any(len(item) != 32 for item in hashes) or len(hashes) > 63 or re.search("[\0-\x09\x0b-\x1f]", note):
        refuse("log_format")
    if not all(made for _, _, made in signatures) or len(signatures) > 32:
        refuse("log_format")
    return int(place[1]), hashes, text + "\n", signatures


def verify_checkpoint(
    text: str, signatures: list[tuple[str, bytes, bytes]], log: list[Key], witnesses: list[Key]
) -> tuple[int, bytes]:
    """Return size and root of the tree, once both keys of the log and every witness have signed them."""
    found = re.fullmatch("([!-*,-~]{1,255})\n(0|[1-9][0-9]{0,18})\n(\\S+)\n", text) or refuse("log_format")
    origin, size, root = found[1], int(found[2]), unbase64(found[3], "log_format")
    if len(root) != 32 or size >= 2**63:
        refuse("log_format")
    if any(key.name != origin for key in log):
        refuse("log_other")
    if sorted(key.kind for key in log) != [1, 6] or any(key.kind != 6 for key in witnesses):
        refuse("log_key")
    missing = set()
    for key in (*log, *witnesses):
        made = [signature for name, identity, signature in signatures if (name, identity) == key[:2]]
        for signature in made:  # one of a known key that does not verify spoils all
            if key.kind == 1:
                check(key.public, signature, text.encode(), "log_signature")
                continue
            message = b"subtree/v1\n\0" + bytes((len(key.name.encode()),)) + key.name.encode() + signature[:8]
            message += bytes((len(origin),)) + origin.encode() + bytes(8) + size.to_bytes(8, "big") + root
            try:
                MLDSA44PublicKey.from_public_bytes(key.public).verify(signature[8:], message)
            except (ValueError, InvalidSignature):
                refuse("log_signature")
        if not made:
            missing.add("log_signature" if key in log else "log_witnesses")
    if missing:
        refuse(min(missing))
    return size, root


def verify_inclusion(entry: bytes, index: int, size: int, hashes: list[bytes], root: bytes) -> None:
    """Check that the hashes lead from the entry to the root (RFC 9162 section 2.1.3.2)."""
    last, computed = size - 1, hashlib.sha256(b"\0" + entry).digest()
    if index > last:
        refuse("log_inclusion")
    for item in hashes:
        if not last:
            refuse("log_inclusion")
        if index & 1 or index == last:
            computed = hashlib.sha256(b"\1" + item + computed).digest()
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            computed = hashlib.sha256(b"\1" + computed + item).digest()
        index, last = index >> 1, last >> 1
    if last or computed != root:
        refuse("log_inclusion")


def main() -> int:
    """Verify what the command line names."""
    parser = argparse.ArgumentParser(description="Verify a receipt offline.")
    parser.add_argument("receipt", type=Path)
    parser.add_argument("--root", required=True, help="root key, base64")
    parser.add_argument("--keyring", type=Path, required=True)
    parser.add_argument("--proof", type=Path)
    parser.add_argument("--log", type=Path, help="file with the log's two keys")
    parser.add_argument("--witness", type=Path, action="append", default=[], help="file with a witness's key")
    args = parser.parse_args()
    if args.proof and not args.log:
        parser.error("--proof needs --log")
    try:
        entry, ring = args.receipt.read_bytes(), args.keyring.read_bytes()
        verify_receipt(entry, json.loads(ring), args.root)
        if canonical(json.loads(ring)) != ring.removesuffix(b"\n"):
            refuse("keyring_format")
        if args.proof:
            log = [read_key(line) for line in args.log.read_text().splitlines()]
            witnesses = [read_key(file.read_text().strip()) for file in args.witness]
            index, hashes, text, signatures = read_proof(args.proof.read_bytes())
            size, root = verify_checkpoint(text, signatures, log, witnesses)
            verify_inclusion(entry, index, size, hashes, root)
    except OSError as error:
        parser.error(f"cannot read {error.filename}")
    except (Refused, ValueError, RecursionError) as error:
        print(f"refused: {error if isinstance(error, Refused) else 'a file is not text or JSON'}")
        return 1
    print("valid" if args.proof else "valid; no proof was given that the log has it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Ed25519 signatures with a purpose, and the files that hold the keys.

What is signed has the form that `ssh-keygen -Y` signs: the purpose is its namespace, so that a signature made for one purpose never
verifies for another (a bundle can never pass for a receipt), and others' tools verify each of them (`ssh_signature`).

Source: RFC 8032 (Ed25519), OpenSSH PROTOCOL.sshsig; keys at rest are PKCS #8 PEM without passphrase, mode 0600, one per file.
"""

from __future__ import annotations

import hashlib
import struct
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from appliance.core.errors import HostError, RefusedError
from appliance.core.names import decode_base64, encode_base64
from appliance.core.storage import write_new

_HASH: Final = b"sha512"
_KEY_KIND: Final = b"ssh-ed25519"


class Purpose(StrEnum):
    """What a signature is for."""

    BUNDLE = "bundle/v1"
    REVOCATION = "revocation/v1"
    GRANT = "grant/v1"
    RECEIPT = "receipt/v1"
    KEYRING = "keyring/v1"
    HEARTBEAT = "heartbeat/v1"
    EPOCH = "epoch/v1"
    BACKUP = "backup/v1"


def _framed(purpose: Purpose, message: bytes) -> bytes:
    """Return what is signed (PROTOCOL.sshsig, "Signed Data")."""
    return b"SSHSIG" + b"".join(
        _string(part) for part in (_namespace(purpose), b"", _HASH, hashlib.sha512(message).digest())
    )


def _namespace(purpose: Purpose) -> bytes:
    return b"sovereign-appliance/" + purpose.encode("ascii")


def _string(data: bytes) -> bytes:
    """Return the `string` of RFC 4251 section 5."""
    return struct.pack(">I", len(data)) + data


def sign(key: Ed25519PrivateKey, purpose: Purpose, message: bytes) -> str:
    """Return the signature of `message` for `purpose` as canonical base64 (64 bytes before encoding)."""
    return encode_base64(key.sign(_framed(purpose, message)))


def verify(public_key: str, purpose: Purpose, message: bytes, signature: str) -> None:
    """Check a signature; return None or raise.

    Args:
        public_key: 32 bytes as canonical base64.
        signature: 64 bytes as canonical base64.

    Raises:
        RefusedError: If the signature is not one of this key over this message for this purpose.
    """
    try:
        raw = decode_base64(signature)
        key = Ed25519PublicKey.from_public_bytes(decode_base64(public_key))
        key.verify(raw, _framed(purpose, message))
    except (ValueError, InvalidSignature) as error:
        raise RefusedError("the signature does not verify", field="signature") from error


def ssh_signature(public_key: str, purpose: Purpose, signature: str) -> str:
    """Return a signature as a file for `ssh-keygen -Y verify` (PROTOCOL.sshsig, "Blob format").

    Args:
        public_key: 32 bytes as canonical base64.
        signature: As `sign` returned it.
    """
    public, made = (_string(_KEY_KIND) + _string(decode_base64(data)) for data in (public_key, signature))
    parts = (public, _namespace(purpose), b"", _HASH, made)
    blob = b"SSHSIG" + struct.pack(">I", 1) + b"".join(_string(part) for part in parts)
    lines = textwrap.wrap(encode_base64(blob), 70)
    return "\n".join(("-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""))


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the public half as canonical base64 of its 32 bytes."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return encode_base64(raw)


def key_id(public_key: str) -> str:
    """Return the short name of a public key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(decode_base64(public_key)).hexdigest()[:16]


def write_private_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a private key as PKCS #8 PEM, mode 0600, durably; refuse to overwrite.

    Raises:
        HostError: If the file is already there.
    """
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_new(path, pem, 0o600)
    except FileExistsError as error:
        raise HostError(f"{path} exists; a private key is never overwritten") from error


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key.

    Raises:
        HostError: If the file is missing, unreadable or of another kind; there is no default secret.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise HostError(f"cannot read the private key {path}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise HostError(f"{path} does not hold an Ed25519 key")
    return key

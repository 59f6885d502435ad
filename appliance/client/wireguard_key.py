"""WireGuard keys, made on the client and never sent anywhere.

A private key is 32 random bytes clamped as in RFC 7748 section 5; files hold it as wg(8) prints it.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core.errors import HostError, UsageError
from appliance.core.names import decode_base64, encode_base64


def generate(path: Path) -> str:
    """Write a new private key to `path` (mode 0600) and return the public key.

    Raises:
        UsageError: If the file is already there; a key is never overwritten.
    """
    raw = bytearray(X25519PrivateKey.generate().private_bytes_raw())
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        hint = f"appliance client keygen --show {path} prints its public key"
        raise UsageError(f"{path} exists; a private key is never overwritten", hint=hint) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(encode_base64(bytes(raw)) + "\n")
    return public_key(path)


def read(path: Path) -> str:
    """Return the private key in `path` as canonical base64.

    Raises:
        HostError: If it cannot be read or is not a key.
    """
    try:
        text = path.read_text("ascii").strip()
        if len(decode_base64(text)) != 32:
            raise ValueError("not 32 bytes")
    except (OSError, ValueError) as error:
        raise HostError(
            f"{path} does not hold a WireGuard private key", hint="appliance client keygen"
        ) from error
    return text


def public_key(path: Path) -> str:
    """Return the public key that belongs to the private key in `path`."""
    private = X25519PrivateKey.from_private_bytes(decode_base64(read(path)))
    return encode_base64(private.public_key().public_bytes_raw())

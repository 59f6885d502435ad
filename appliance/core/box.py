"""A box between two who hold the same key: what passes through others unread and unchanged.

ChaCha20-Poly1305 (RFC 8439) under a key that was made for one exchange, with a random nonce: an exchange has a handful of boxes, so two
nonces are never the same. A purpose is bound to each box, so that what one side sent cannot be shown to it as an answer.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from pydantic import StringConstraints

from appliance.core.errors import RefusedError
from appliance.core.names import decode_base64, encode_base64

MAX_BOX_CHARACTERS: Final = 65_536
Box = Annotated[
    str, StringConstraints(min_length=40, max_length=MAX_BOX_CHARACTERS, pattern=r"^[A-Za-z0-9+/]+={0,2}$")
]
"""A closed box as base64 text: nonce (12 bytes), ciphertext, tag (16 bytes)."""

_NONCE_BYTES: Final = 12


def close_box(key: bytes, purpose: str, plaintext: bytes) -> str:
    """Close a box.

    Args:
        key: 32 bytes that both ends hold.
        purpose: Opening it for another one fails.
        plaintext: What to hide.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return encode_base64(nonce + ChaCha20Poly1305(key).encrypt(nonce, plaintext, purpose.encode("ascii")))


def open_box(key: bytes, purpose: str, box: str) -> bytes:
    """Open a box.

    Raises:
        RefusedError: If it was not closed with this key for this purpose, or was changed.
    """
    try:
        raw = decode_base64(box)
        nonce, ciphertext = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, purpose.encode("ascii"))
    except (ValueError, InvalidTag) as error:
        raise RefusedError("the box does not open", field="box") from error

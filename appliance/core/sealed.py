"""A sealed box: anyone with the public key can close it, only the holder of the private key can open it.

The web process of control puts each pre-shared key into such a box at once and cannot read it again; the reconciler
opens it when it renders a bundle. X25519 (RFC 7748) with a throw-away key, HKDF-SHA256 (RFC 5869),
ChaCha20-Poly1305 (RFC 8439). The key is fresh for each box, so the all-zero nonce is used once.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.core.errors import RefusedError
from appliance.core.names import decode_base64, encode_base64

_INFO = b"sovereign-appliance/sealed/v1"
_NONCE = bytes(12)


def seal(recipient: str, plaintext: bytes, context: bytes) -> str:
    """Close a box for `recipient`.

    Args:
        recipient: X25519 public key, canonical base64.
        plaintext: What to hide.
        context: Bound to the box (for example the device's name): opening with another context fails.
    """
    public = X25519PublicKey.from_public_bytes(decode_base64(recipient))
    ephemeral = X25519PrivateKey.generate()
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    cipher = ChaCha20Poly1305(
        _derive(ephemeral.exchange(public), ephemeral_public, public.public_bytes_raw())
    )
    return encode_base64(ephemeral_public + cipher.encrypt(_NONCE, plaintext, context))


def unseal(key: X25519PrivateKey, box: str, context: bytes) -> bytes:
    """Open a box.

    Raises:
        RefusedError: If the box was not made for this key and context, or was changed.
    """
    try:
        raw = decode_base64(box)
        ephemeral_public, ciphertext = raw[:32], raw[32:]
        shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral_public))
        derived = _derive(shared, ephemeral_public, key.public_key().public_bytes_raw())
        return ChaCha20Poly1305(derived).decrypt(_NONCE, ciphertext, context)
    except (ValueError, InvalidTag) as error:
        raise RefusedError("the sealed value does not open", field="sealed") from error


def _derive(shared: bytes, ephemeral_public: bytes, recipient: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=ephemeral_public + recipient, info=_INFO).derive(shared)

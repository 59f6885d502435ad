"""Seals the secrets of authenticator apps under a key that the web process alone reads and the database does not hold.

Unlike a device's pre-shared key (`appliance.core.sealed`) such a secret is needed by whoever sealed it, with every code that is typed. So
the key is symmetric: ChaCha20-Poly1305 (RFC 8439) with a random nonce; at a handful of secrets none will come twice.
"""

from __future__ import annotations

import secrets
from functools import cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from django.conf import settings

from appliance.core.errors import HostError, RefusedError
from appliance.core.names import decode_base64, encode_base64

_NONCE_BYTES: Final = 12


def seal_secret(secret: bytes, context: str) -> str:
    """Seal a secret.

    Args:
        secret: What to hide.
        context: Bound to it, so that one operator's does not open in another's row.

    Raises:
        HostError: If there is no usable key.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return encode_base64(nonce + _cipher().encrypt(nonce, secret, context.encode("utf-8")))


def open_secret(sealed: str, context: str) -> bytes:
    """Open a sealed secret.

    Raises:
        RefusedError: If it was sealed under another key or for another context, or was changed.
        HostError: If there is no usable key.
    """
    try:
        raw = decode_base64(sealed)
        return _cipher().decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode("utf-8"))
    except (ValueError, InvalidTag) as error:
        raise RefusedError(
            "the authenticator app's secret does not open",
            hint="take another factor, then set the app up again; or restore web/factor.key",
        ) from error


def verify_factor_key() -> None:
    """Check that the key can be used; return None or raise HostError."""
    _cipher()


@cache
def _cipher() -> ChaCha20Poly1305:
    path = settings.PATHS.factor_key
    try:
        return ChaCha20Poly1305(decode_base64(path.read_text("ascii").strip()))
    except OSError as error:
        raise HostError(
            f"cannot read {path}", hint="run `appliance control init`, then serve as the web process's user"
        ) from error
    except ValueError as error:
        raise HostError(f"{path} is damaged", hint="restore it from a backup") from error

"""Time-based one-time passwords (RFC 6238): what an authenticator app shows. Pure: secret, code and time are arguments.

SHA-1, six digits, 30 s: what every app understands. HMAC does not rest on SHA-1's collisions, and a code is only as good as six digits.
"""

from __future__ import annotations

import hmac
from base64 import b32encode
from typing import Final
from urllib.parse import quote, urlencode

DIGITS: Final = 6
STEP_S: Final = 30
SKEW: Final = 1  # steps that a clock may be off, either way (RFC 6238, section 5.2)
SECRET_BYTES: Final = 20  # as long as HMAC-SHA-1's output (RFC 4226, section 4, R6)


def step_at(now_s: float) -> int:
    """Return the time step of a Unix time in seconds."""
    return int(now_s) // STEP_S


def code_of(secret: bytes, step: int) -> str:
    """Return the code of a time step (RFC 4226, section 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def matching_step(secret: bytes, code: str, now_s: float, after: int) -> int | None:
    """Return the time step that a code belongs to, or None.

    Args:
        secret: The shared secret.
        code: What was typed.
        now_s: Unix time in seconds.
        after: The step of the last code that was taken: it and older ones are not taken again (RFC 6238, section 5.2).
    """
    now, typed = step_at(now_s), code.encode("utf-8", "replace")
    steps = [step for step in range(now - SKEW, now + SKEW + 1) if step > after]
    return max((s for s in steps if hmac.compare_digest(code_of(secret, s).encode(), typed)), default=None)


def text_of(secret: bytes) -> str:
    """Return a secret as people type it into an app."""
    return b32encode(secret).decode("ascii")


def uri_of(secret: bytes, issuer: str, account: str) -> str:
    """Return the address that an app reads from a QR code (the Key URI format of Google Authenticator)."""
    facts = {
        "secret": text_of(secret),
        "issuer": issuer,
        "algorithm": "SHA1",
        "digits": DIGITS,
        "period": STEP_S,
    }
    return f"otpauth://totp/{quote(f'{issuer}:{account}')}?{urlencode(facts, quote_via=quote)}"

"""What a device that redeems an invitation and control tell each other, in boxes that pass through the node's mailbox.

Normative text: docs/spec/enrolment-v1.md.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Final, Literal

from pydantic import StringConstraints, model_validator

from appliance.core.box import MAX_BOX_CHARACTERS, close_box, open_box
from appliance.core.client_configuration import DeviceConfiguration
from appliance.core.errors import RefusedError
from appliance.core.names import Digest, Key32, decode_base64
from appliance.core.schema import Closed

PORT: Final = 8444
"""TCP, on the node's tunnel addresses: the only port that a throw-away peer reaches."""
PATH: Final = "/enrolment"
MAX_LETTER_CHARACTERS: Final = 2048
"""Of the box that is posted; an answer may be as long as a box can be."""

_REDEMPTION, _ANSWER = "redemption", "answer"


class Redemption(Closed):
    """What the device made. Its private key and its token stay where they are.

    Attributes:
        public_key: WireGuard public key.
        preshared_key: WireGuard pre-shared key.
        token_sha256: Digest of the bearer token.
    """

    preshared_key: Key32
    public_key: Key32
    token_sha256: Digest
    v: Literal[1] = 1


class Answer(Closed):
    """What control says to it: one of the two.

    Attributes:
        configuration: Everything that the device does not know already.
        refused: Why it is not let in, for a person.
    """

    configuration: DeviceConfiguration | None = None
    refused: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    v: Literal[1] = 1

    @model_validator(mode="after")
    def _one_of_two(self) -> Answer:
        if (self.configuration is None) is (self.refused is None):
            raise ValueError("either a configuration or a refusal")
        return self


def close_redemption(key: bytes, redemption: Redemption) -> str:
    """Return the box that is posted."""
    return close_box(key, _REDEMPTION, redemption.canonical_bytes())


def open_redemption(key: bytes, box: str) -> Redemption:
    """Open what was posted.

    Raises:
        RefusedError: If it was not closed with this invitation's key, or says something else.
    """
    return Redemption.parse_canonical(open_box(key, _REDEMPTION, box))


def close_answer(key: bytes, answer: Answer) -> str:
    """Return the box that the mailbox hands out.

    Raises:
        RefusedError: If it is longer than a box may be.
    """
    box = close_box(key, _ANSWER, answer.canonical_bytes())
    if len(box) > MAX_BOX_CHARACTERS:
        raise RefusedError("too long for an answer", field="answer")
    return box


def open_answer(key: bytes, box: str) -> Answer:
    """Open what the mailbox handed out.

    Raises:
        RefusedError: If control did not close it for this invitation.
    """
    return Answer.parse_canonical(open_box(key, _ANSWER, box))


def fingerprint(public_key: str) -> str:
    """Return what two people compare of a key: 80 bits of its SHA-256 as `ABCD-EFGH-IJKL-MNOP` (base32, RFC 4648 section 6)."""
    text = base64.b32encode(hashlib.sha256(decode_base64(public_key)).digest()[:10]).decode("ascii")
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))

"""What passes through the node's mailbox is opened by its two ends, for what it was closed for, and by nobody else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.box import close_box, open_box
from appliance.core.enrolment import (
    MAX_LETTER_CHARACTERS,
    Answer,
    Redemption,
    close_answer,
    close_redemption,
    fingerprint,
    open_answer,
    open_redemption,
)
from appliance.core.errors import RefusedError
from appliance.core.names import decode_base64, encode_base64

KEY, OTHER = b"k" * 32, b"o" * 32
REDEMPTION = Redemption(
    public_key=encode_base64(b"p" * 32), preshared_key=encode_base64(b"q" * 32), token_sha256="ab" * 32
)


@given(st.binary(max_size=200), st.text("abc", min_size=1, max_size=5))
def test_a_box_opens_for_its_key_and_purpose_alone(plaintext: bytes, purpose: str) -> None:
    box = close_box(KEY, purpose, plaintext)
    assert open_box(KEY, purpose, box) == plaintext
    for key, other in ((OTHER, purpose), (KEY, purpose + "x")):
        with pytest.raises(RefusedError):
            open_box(key, other, box)
    assert close_box(KEY, purpose, plaintext) != box, "two boxes never share a nonce"


@given(st.data())
def test_a_changed_box_does_not_open(data: st.DataObject) -> None:
    raw = bytearray(decode_base64(close_redemption(KEY, REDEMPTION)))
    place, change = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))
    raw[place] ^= change
    with pytest.raises(RefusedError):
        open_redemption(KEY, encode_base64(bytes(raw)))


@pytest.mark.parametrize("text", ["", "A", "====", "not base64", encode_base64(b"short")])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        open_redemption(KEY, text)


def test_a_letter_comes_back_and_fits_the_mailbox() -> None:
    letter = close_redemption(KEY, REDEMPTION)
    assert open_redemption(KEY, letter) == REDEMPTION
    assert len(letter) < MAX_LETTER_CHARACTERS


def test_a_letter_is_never_taken_for_an_answer_nor_an_answer_for_a_letter() -> None:
    with pytest.raises(RefusedError):
        open_answer(KEY, close_redemption(KEY, REDEMPTION))
    refusal = close_answer(KEY, Answer(refused="no"))
    assert open_answer(KEY, refusal).refused == "no"
    with pytest.raises(RefusedError):
        open_redemption(KEY, refusal)


def test_an_answer_is_one_of_two_things() -> None:
    with pytest.raises(RefusedError):
        Answer.parse({"v": 1})


def test_a_fingerprint_is_short_and_each_key_has_its_own() -> None:
    first, second = (fingerprint(encode_base64(seed * 32)) for seed in (b"1", b"2"))
    assert first != second
    assert re.fullmatch(r"([A-Z2-7]{4}-){3}[A-Z2-7]{4}", first)

"""Encrypted files: what is written is read, anything else is refused, and `age` itself agrees where it is installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import RefusedError
from control.backup.age import Identity, Lock, Passphrase, Reader, Recipient, Unlock, Writer, make_identity
from control.backup.bech32 import decode_bech32, encode_bech32

# age's own example of a key pair: the private key is 32 times 0x42.
SECRET = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
PUBLIC = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
CHUNK = 64 * 1024
IDENTITY = make_identity()
PASSPHRASE = Passphrase("correct horse battery staple", log2n=4)


def seal(data: bytes, lock: Lock, piece: int = 10_000) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, lock)
    for place in range(0, len(data), piece):
        writer.write(data[place : place + piece])
    writer.finish()
    return file.getvalue()


def open_(sealed: bytes, unlock: Unlock) -> bytes:
    return io.BufferedReader(Reader(io.BytesIO(sealed), unlock)).read()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_what_is_written_is_read(size: int) -> None:
    data = os.urandom(size)
    assert open_(seal(data, IDENTITY.recipient), IDENTITY) == data
    assert open_(seal(data, PASSPHRASE), PASSPHRASE) == data


@given(st.binary(max_size=300), st.data())
def test_a_changed_bit_is_refused_wherever_it_is(data: bytes, chosen: st.DataObject) -> None:
    sealed = bytearray(seal(data, IDENTITY.recipient))
    place = chosen.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[place // 8] ^= 1 << place % 8
    with pytest.raises(RefusedError):
        open_(bytes(sealed), IDENTITY)


@pytest.mark.parametrize("cut", [1, 16, 17, CHUNK + 16, CHUNK + 17, 2 * (CHUNK + 16)])
def test_a_file_that_was_cut_is_refused_at_chunk_borders_too(cut: int) -> None:
    sealed = seal(os.urandom(2 * CHUNK), IDENTITY.recipient)
    with pytest.raises(RefusedError):
        open_(sealed[:-cut], IDENTITY)


def test_chunks_in_another_order_or_more_of_them_are_refused() -> None:
    sealed = seal(os.urandom(3 * CHUNK), IDENTITY.recipient)
    whole = CHUNK + 16
    head, first, second, last = (
        sealed[: -3 * whole],
        *(sealed[len(sealed) - n * whole :][:whole] for n in (3, 2, 1)),
    )
    assert open_(head + first + second + last, IDENTITY)
    for forged in (head + second + first + last, head + first + second + last + last, head + last):
        with pytest.raises(RefusedError):
            open_(forged, IDENTITY)


def test_another_key_or_passphrase_opens_nothing() -> None:
    sealed = seal(b"secret", IDENTITY.recipient)
    assert b"secret" not in sealed
    for other in (make_identity(), PASSPHRASE):
        with pytest.raises(RefusedError, match="another key"):
            open_(sealed, other)
    with pytest.raises(RefusedError, match="another key"):
        open_(seal(b"secret", PASSPHRASE), Passphrase("something else entirely", log2n=4))


def test_a_forged_header_cannot_ask_for_all_of_the_memory() -> None:
    sealed = seal(b"x", PASSPHRASE)
    with pytest.raises(RefusedError, match="work"):
        open_(sealed.replace(b" 4\n", b" 40\n", 1), PASSPHRASE)


def test_keys_are_written_as_age_writes_them() -> None:
    identity = Identity.parse(f"# a comment\n\n{SECRET}\n")
    assert identity.key.private_bytes_raw() == b"\x42" * 32
    assert identity.recipient.render() == PUBLIC
    assert Recipient.parse(PUBLIC) == identity.recipient
    assert Identity.parse(identity.render()).recipient == identity.recipient


@given(st.binary(min_size=32, max_size=32), st.integers(0, 57), st.integers(1, 31))
def test_a_mistyped_key_is_refused(key: bytes, place: int, shift: int) -> None:
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    text = encode_bech32("age", key)
    assert decode_bech32("age", text) == key
    at = len("age1") + place
    typed = alphabet[(alphabet.index(text[at]) + shift) % 32]
    for wrong in (text[:at] + typed + text[at + 1 :], text[:-1], text + "q", text.capitalize(), text[3:]):
        with pytest.raises(RefusedError):
            decode_bech32("age", wrong)


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (apt install age)")
def test_age_opens_what_we_write_and_we_what_age_writes(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK)
    (tmp_path / "key").write_text(IDENTITY.render())
    sealed = seal(data, IDENTITY.recipient)
    opened = subprocess.run(
        ["age", "-d", "-i", tmp_path / "key"], input=sealed, capture_output=True, check=True
    )
    assert opened.stdout == data
    theirs = subprocess.run(
        ["age", "-r", IDENTITY.recipient.render()], input=data, capture_output=True, check=True
    )
    assert open_(theirs.stdout, IDENTITY) == data

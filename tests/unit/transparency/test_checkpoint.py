"""Checkpoints and proofs: one spelling, both signatures of the log, as many witnesses as were asked for."""

from __future__ import annotations

import base64
import functools
import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from transparency_world import NOW, ORIGIN, Tree, entries, mth, policy, signer, witness

from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import (
    InclusionError,
    LogError,
    LogFormatError,
    LogSignatureError,
    OtherLogError,
    WitnessError,
)
from appliance.transparency.merkle import inclusion_proof
from appliance.transparency.note import Note, VerifierKey
from appliance.transparency.proof import Proof

ENTRIES = entries(11)
ALICE, BOB = witness("alice.example/w"), witness("bob.example/w")


@functools.cache  # ML-DSA signs with fresh chance each time
def note() -> Note:
    return signer().sign(11, mth(ENTRIES), NOW)


def proof(index: int = 4) -> Proof:
    return Proof(index, tuple(inclusion_proof(Tree(ENTRIES), index, 11)), note())


def test_a_checkpoint_reads_as_the_specification_has_it() -> None:
    text = note().render().decode()
    lines = text.split("\n")
    assert lines[:4] == [ORIGIN, "11", base64.b64encode(mth(ENTRIES)).decode(), ""]
    assert [line.split(" ")[:2] for line in lines[4:-1]] == [["\N{EM DASH}", ORIGIN]] * 2
    assert lines[-1] == ""


def test_key_ids_and_keys_as_text_are_those_of_the_specification() -> None:
    for key, kind, length in zip(signer().verifier_keys, (1, 6), (32, 1312), strict=True):
        assert len(key.public) == length
        assert key.id == hashlib.sha256(ORIGIN.encode() + b"\n" + bytes((kind,)) + key.public).digest()[:4]
        assert VerifierKey.parse(key.render()) == key
        name, key_id, encoded = key.render().split("+", 2)
        assert (name, key_id) == (ORIGIN, key.id.hex())
        assert base64.b64decode(encoded) == bytes((kind,)) + key.public


def test_the_signed_tree_head_is_the_structure_of_the_specification() -> None:
    cosignature = note().signatures[1]
    message = b"subtree/v1\n\0" + bytes((len(ORIGIN),)) + ORIGIN.encode() + NOW.to_bytes(8, "big")
    message += bytes((len(ORIGIN),)) + ORIGIN.encode() + bytes(8) + (11).to_bytes(8, "big") + mth(ENTRIES)
    assert cosignature.data[:8] == NOW.to_bytes(8, "big")
    signer().mldsa44.public_key().verify(cosignature.data[8:], message)


def test_openssl_verifies_a_checkpoint_without_our_code(tmp_path: Path) -> None:
    key, text, signature = (tmp_path / name for name in ("key.pem", "text", "signature"))
    key.write_bytes(
        signer()
        .ed25519.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    body, _, lines = note().render().partition(b"\n\n")
    text.write_bytes(body + b"\n")
    signature.write_bytes(base64.b64decode(lines.split(b"\n")[0].split(b" ")[2])[4:])
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        key,
        "-sigfile",
        signature,
        "-in",
        text,
    ]
    assert subprocess.run(command, check=True, capture_output=True).stdout.startswith(b"Signature Verified")


def test_what_the_log_signed_is_what_a_verifier_gets() -> None:
    assert policy().verify(Note.parse(note().render())) == Checkpoint(ORIGIN, 11, mth(ENTRIES))


def test_a_proof_goes_round_and_shows_its_entry_and_no_other() -> None:
    for index, entry in enumerate(ENTRIES):
        read = Proof.parse(proof(index).render())
        assert read == proof(index)
        assert read.verify(entry, policy()).size == 11
        with pytest.raises(InclusionError):
            read.verify(b"another", policy())
        with pytest.raises(InclusionError):
            replace(read, index=(index + 1) % 11).verify(entry, policy())


def test_no_byte_of_a_proof_can_be_changed_dropped_or_doubled() -> None:
    honest = proof().render()
    # Of the long signature every eleventh byte, of all else each.
    long = honest.rindex(b" ", 0, -3)
    for place in [*range(long), *range(long, len(honest), 11), len(honest) - 1]:
        for changed in (
            honest[:place] + bytes((honest[place] ^ 1,)) + honest[place + 1 :],
            honest[:place] + honest[place + 1 :],
            honest[:place] + honest[place : place + 1] + honest[place:],
        ):
            with pytest.raises(LogError):
                Proof.parse(changed).verify(ENTRIES[4], policy())
    for extra in (b"\n", b"x", b" "):
        with pytest.raises(LogFormatError):
            Proof.parse(honest + extra)


def test_another_log_s_checkpoint_is_refused_by_name() -> None:
    other = signer("elsewhere.example/log", "log").sign(11, mth(ENTRIES), NOW)
    with pytest.raises(OtherLogError):
        policy().verify(other)


@pytest.mark.parametrize("kept", [0, 1])
def test_neither_signature_of_the_log_can_be_left_out(kept: int) -> None:
    with pytest.raises(LogSignatureError):
        policy().verify(replace(note(), signatures=(note().signatures[kept],)))


def test_keys_of_the_same_name_are_not_the_log_s() -> None:
    with pytest.raises(LogSignatureError):
        policy().verify(signer(ORIGIN, "thief").sign(11, mth(ENTRIES), NOW))


def test_a_known_key_s_bad_signature_spoils_the_note_even_beside_a_good_one() -> None:
    honest = note()
    for place in (0, 1):
        bad = replace(honest.signatures[place], data=bytes(len(honest.signatures[place].data)))
        with pytest.raises(LogSignatureError):
            policy().verify(replace(honest, signatures=(*honest.signatures, bad)))


def test_unknown_signatures_change_nothing() -> None:
    honest = note()
    stranger = ALICE.cosign(Checkpoint.parse(honest.text), NOW)
    assert policy().verify(replace(honest, signatures=(stranger, *honest.signatures))).size == 11


def test_as_many_witnesses_are_needed_as_the_policy_says() -> None:
    honest = note()
    head = Checkpoint.parse(honest.text)
    by_alice = replace(honest, signatures=(*honest.signatures, ALICE.cosign(head, NOW)))
    by_both = replace(by_alice, signatures=(*by_alice.signatures, BOB.cosign(head, NOW)))
    twice = replace(by_alice, signatures=(*by_alice.signatures, ALICE.cosign(head, NOW + 1)))
    assert policy(ALICE, BOB, quorum=1).verify(by_alice) == head
    assert policy(ALICE, BOB, quorum=2).verify(by_both) == head
    for too_few in (by_alice, twice):
        with pytest.raises(WitnessError, match="1 of 2"):
            policy(ALICE, BOB, quorum=2).verify(too_few)


def test_a_witness_that_is_named_twice_counts_once() -> None:
    honest = note()
    head = Checkpoint.parse(honest.text)
    by_alice = replace(honest, signatures=(*honest.signatures, ALICE.cosign(head, NOW)))
    with pytest.raises(WitnessError, match="1 of 2"):
        policy(ALICE, ALICE, quorum=2).verify(by_alice)


def test_keys_of_the_wrong_kind_make_no_policy() -> None:
    ed25519, mldsa44 = signer().verifier_keys
    for keys in ((ed25519, ed25519), (mldsa44, mldsa44), (mldsa44, ed25519)):
        with pytest.raises(LogFormatError):
            Policy(*keys)
    with pytest.raises(LogFormatError):
        Policy(ed25519, mldsa44, (ed25519,), 1)


def test_a_cosignature_of_another_tree_or_time_does_not_count() -> None:
    honest = note()
    elsewhere = ALICE.cosign(Checkpoint(ORIGIN, 12, mth(entries(12))), NOW)
    moved = replace(elsewhere, data=(NOW + 1).to_bytes(8, "big") + elsewhere.data[8:])
    for wrong in (elsewhere, moved):
        with pytest.raises(LogSignatureError):
            policy(ALICE, quorum=1).verify(replace(honest, signatures=(*honest.signatures, wrong)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n11\n",
        f"log\n011\n{'A' * 43}=\n",
        f"log\n-1\n{'A' * 43}=\n",
        f"log\n٣\n{'A' * 43}=\n",
        f"log\n{2**63}\n{'A' * 43}=\n",
        f"a log\n1\n{'A' * 43}=\n",
        f"log+\n1\n{'A' * 43}=\n",
        f"log\n1\n{'A' * 42}B=\n",
        f"log\n1\n{'A' * 44}\n",
        f"log\n1\n{'A' * 43}=\nextension\n",
        f"log\n1\n{'A' * 43}=",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LogFormatError):
        Checkpoint.parse(text)


def test_a_proof_is_as_small_as_was_promised() -> None:
    size = 10_000_000
    path = tuple(bytes(32) for _ in range((size - 1).bit_length()))
    one = Proof(size - 1, path, signer().sign(size, bytes(32), NOW))
    assert len(one.render()) <= 5 * 1024
    cosigned = ALICE.cosign(Checkpoint.parse(one.checkpoint.text), NOW)
    assert len(f"{cosigned.render()}\n".encode()) <= 3.3 * 1024

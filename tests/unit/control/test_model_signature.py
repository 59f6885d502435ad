"""A model's signature is what the reference signs: made by its own command (model_signing 1.1.1), looked at here."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signer import bundle_of, pem_of, statement_of

from appliance.core.errors import PinError, UsageError
from appliance.core.pin import Launch, Manifest, PinnedFile, Runtime
from control.pins.signature import read_signer, signer_id, verify_signature

VECTORS = Path(__file__).parents[2] / "vectors" / "models"
# `m` holds README.md and a.gguf; m.sig and m384.sig are by the keys k.pub and k384.pub, cert.sig by leaf.pem, which ca.pem issued.
# one.sig is over the file a.gguf alone, by k.pub.
CONTENT = b"GGUF-a"


def read(name: str) -> str:
    return (VECTORS / name).read_text("ascii")


def signer(name: str) -> Any:
    return read_signer((VECTORS / name).read_bytes())


def manifest(content: bytes = CONTENT, path: str = "a.gguf") -> Manifest:
    file = PinnedFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return Manifest(
        name="tiny",
        version="1.0",
        files=(file,),
        chat_template="{{ messages }}",
        stop=(),
        launch=Launch(),
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence="Apache-2.0",
        source="tests",
    )


@pytest.mark.parametrize(
    ("bundle", "by"),
    [
        ("m.sig", "k.pub"),
        ("m384.sig", "k384.pub"),
        ("one.sig", "k.pub"),
        ("cert.sig", "ca.pem"),
        ("cert.sig", "leaf.pem"),
    ],
)
def test_what_the_reference_signed_holds(bundle: str, by: str) -> None:
    signed_by = verify_signature(read(bundle), manifest(), [signer("k384.pub"), signer(by)])
    assert signed_by == signer_id(signer(by))


@pytest.mark.parametrize(
    ("bundle", "by"),
    [("m.sig", "k384.pub"), ("m.sig", "ca.pem"), ("m384.sig", "k.pub"), ("cert.sig", "k.pub")],
)
def test_a_signature_by_somebody_else_is_refused(bundle: str, by: str) -> None:
    with pytest.raises(PinError, match="nobody who may"):
        verify_signature(read(bundle), manifest(), [signer(by)])


def test_a_signature_and_nobody_who_may_sign_is_refused() -> None:
    with pytest.raises(PinError) as refused:
        verify_signature(read("m.sig"), manifest(), [])
    assert "--signer" in str(refused.value.hint)


@pytest.mark.parametrize(("content", "path"), [(b"GGUF-b", "a.gguf"), (CONTENT, "b.gguf")])
def test_a_signature_over_other_files_is_refused(content: bytes, path: str) -> None:
    with pytest.raises(PinError) as refused:
        verify_signature(read("m.sig"), manifest(content, path), [signer("k.pub")])
    assert refused.value.field == "files.0"


def test_a_file_that_the_signature_does_not_name_is_refused() -> None:
    other = manifest().files[0].model_copy(update={"path": "b.gguf"})
    more = manifest().model_copy(update={"files": (*manifest().files, other)})
    for bundle in ("m.sig", "one.sig"):
        with pytest.raises(PinError) as refused:
            verify_signature(read(bundle), more, [signer("k.pub")])
        assert str(refused.value.field).startswith("files.")


ED25519 = Ed25519PrivateKey.generate()


def check(bundle: str) -> str:
    return verify_signature(bundle, manifest(), [read_signer(pem_of(ED25519))])


def test_ed25519_signs_models_too() -> None:
    assert len(check(bundle_of(statement_of(("a.gguf", CONTENT)), ED25519.sign))) == 64


PROPER = statement_of(("a.gguf", CONTENT))
STATEMENTS = {
    "of another kind": PROPER | {"_type": "https://in-toto.io/Statement/v0.1"},
    "of an old predicate": PROPER | {"predicateType": "https://model_signing/Digests/v0.1"},
    "with another root": PROPER | {"subject": [{"digest": {"sha256": "0" * 64}}]},
    "of no subject": PROPER | {"subject": []},
    "naming a file twice": statement_of(("a.gguf", b"other"), ("a.gguf", CONTENT)),
    "of pieces of files": PROPER
    | {"predicate": PROPER["predicate"] | {"serialization": {"method": "shards", "hash_type": "sha256"}}},
    "of other hashes": PROPER
    | {"predicate": PROPER["predicate"] | {"serialization": {"method": "files", "hash_type": "blake3"}}},
    "that is a list": [],
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_a_signed_statement_that_says_something_else_is_refused(statement: Any) -> None:
    with pytest.raises(PinError):
        check(bundle_of(statement, ED25519.sign))


BUNDLES = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "{}",
    "another version": bundle_of(
        PROPER, ED25519.sign, mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"
    ),
    "a message, no envelope": bundle_of(PROPER, ED25519.sign, dsseEnvelope=None),
    "signed without DSSE": bundle_of(PROPER, lambda signed: ED25519.sign(signed.split(b" ", 4)[4])),
    "much too long": " " * 2**21,
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("bundle", BUNDLES.values(), ids=BUNDLES.keys())
def test_what_is_no_signature_is_refused(bundle: str) -> None:
    with pytest.raises(PinError):
        check(bundle)


WHOLE = bundle_of(PROPER, ED25519.sign)
SIGNED = WHOLE.index('"payload"'), WHOLE.index('"keyid"')


@given(st.integers(*SIGNED), st.characters(codec="ascii"))
@settings(deadline=None, max_examples=200)
def test_no_changed_character_of_the_envelope_holds(place: int, character: str) -> None:
    changed = WHOLE[:place] + character + WHOLE[place + 1 :]
    if json_equal(changed, WHOLE):
        return
    with pytest.raises(PinError):
        check(changed)


def json_equal(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def certificate(
    key: Any, issuer_key: Any, *, ca: bool = False, usage: bool = True, began: datetime | None = None
) -> x509.Certificate:
    began = began or datetime.now(UTC) - timedelta(days=1)
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    name = issuer if key is issuer_key else x509.Name([])
    builder = (
        x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage:
        flags = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        ) | dict.fromkeys(("crl_sign", "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, **flags), critical=True
        )
    return builder.sign(issuer_key, hashes.SHA256())


def with_certificate(leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    der = base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()
    material = {"x509CertificateChain": {"certificates": [{"rawBytes": der}]}}
    return bundle_of(
        PROPER, lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())), verificationMaterial=material
    )


def test_a_certificate_counts_if_its_issuer_may_issue_and_it_may_sign() -> None:
    ours, theirs, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    authority = certificate(ours, ours, ca=True)
    old = datetime.now(UTC) - timedelta(days=300)
    cases = {
        "proper": (certificate(key, ours), authority, True),
        "issued by another": (certificate(key, theirs), authority, False),
        "not for signatures": (certificate(key, ours, usage=False), authority, False),
        "begun before its issuer": (certificate(key, ours, began=old), authority, False),
        "issued by who may not issue": (certificate(key, ours), certificate(ours, ours), False),
        "of an old authority": (
            certificate(key, ours, began=old),
            certificate(ours, ours, ca=True, began=old),
            True,
        ),
    }
    for name, (leaf, trusted, holds) in cases.items():
        bundle = with_certificate(leaf, key)
        if holds:
            assert verify_signature(bundle, manifest(), [trusted]) == signer_id(trusted), name
        else:
            with pytest.raises(PinError):
                verify_signature(bundle, manifest(), [trusted])


def test_only_kinds_of_keys_that_sign_models_are_signers() -> None:
    for key in (
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256K1()),
    ):
        with pytest.raises(UsageError):
            read_signer(pem_of(key))
    for junk in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"):
        with pytest.raises(UsageError):
            read_signer(junk)

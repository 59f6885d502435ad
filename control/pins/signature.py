"""Checks the signature of a model: OpenSSF model signing 1.0, with a key or a certificate.

It is a Sigstore bundle (JSON) around a DSSE envelope around an in-toto statement, which lists the model's files with their SHA-256.
Signatures by short-lived certificates of the public Sigstore (`keyless`) need its trust root and its log, so the Internet: they are refused.

Sources: https://github.com/sigstore/model-transparency, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md,
https://github.com/in-toto/attestation/tree/main/spec/v1, sigstore_bundle.proto.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ConfigDict, Field, StringConstraints

from appliance.core.errors import PinError, RefusedError, UsageError
from appliance.core.names import Digest, decode_base64
from appliance.core.pin import Manifest
from appliance.core.schema import Closed

MAX_BYTES: Final = 2**20  # of a bundle; a statement names a few dozen files
FIELD: Final = "signature"
_IN_TOTO: Final = "application/vnd.in-toto+json"
# By the size of the curve, as the bundle's specification has it.
_HASHES: Final[dict[int, hashes.HashAlgorithm]] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}
_WHOLE_MODEL: Final = "."  # how a statement names the file where the model is one file and no folder
Base64 = Annotated[str, StringConstraints(max_length=MAX_BYTES)]
PublicKey = ec.EllipticCurvePublicKey | Ed25519PublicKey
Signer = PublicKey | x509.Certificate
T = TypeVar("T", bound=Closed)


class _Open(Closed):
    """A part of somebody else's format: what we do not read may be there."""

    model_config = ConfigDict(extra="ignore")


class _Signature(_Open):
    sig: Base64


class _Envelope(_Open):
    payload: Base64
    payload_type: Annotated[Literal["application/vnd.in-toto+json"], Field(alias="payloadType")]
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=1)]


class _Certificate(_Open):
    raw_bytes: Annotated[Base64, Field(alias="rawBytes")]


class _Chain(_Open):
    certificates: Annotated[tuple[_Certificate, ...], Field(min_length=1, max_length=8)]


class _Material(_Open):
    chain: Annotated[_Chain | None, Field(alias="x509CertificateChain")] = None


class _Bundle(_Open):
    envelope: Annotated[_Envelope, Field(alias="dsseEnvelope")]
    material: Annotated[_Material, Field(alias="verificationMaterial")]
    media_type: Annotated[Literal["application/vnd.dev.sigstore.bundle.v0.3+json"], Field(alias="mediaType")]


class _Resource(_Open):
    algorithm: Literal["sha256"]
    digest: Digest
    name: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class _Serialization(_Open):
    hash_type: Literal["sha256"]
    method: Literal["files"]


class _Predicate(_Open):
    resources: Annotated[tuple[_Resource, ...], Field(min_length=1, max_length=4096)]
    serialization: _Serialization


class _Digest(_Open):
    sha256: Digest


class _Subject(_Open):
    digest: _Digest


class _Statement(_Open):
    kind: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    predicate: _Predicate
    predicate_type: Annotated[Literal["https://model_signing/signature/v1.0"], Field(alias="predicateType")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]


def read_signer(pem: bytes) -> Signer:
    """Read who may sign: a public key, or a certificate of the signer or of the authority that issues its certificates (PEM).

    Raises:
        UsageError: If it is neither, or a key of a kind that models are not signed with.
    """
    try:
        if b"BEGIN CERTIFICATE" in pem:
            return x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise UsageError(
            "the signer's file is neither a public key nor a certificate",
            hint="a PEM file, as `openssl` writes it",
        ) from error
    if isinstance(key, Ed25519PublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and _is_nist(key)):
        return key
    raise UsageError(
        "models are not signed with keys of this kind", hint="ECDSA on P-256, P-384 or P-521, or Ed25519"
    )


def signer_id(signer: Signer) -> str:
    """Return the SHA-256 of a signer's public key (DER, SubjectPublicKeyInfo), 64 hexadecimal digits."""
    key = signer.public_key() if isinstance(signer, x509.Certificate) else signer
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def verify_signature(bundle: str, manifest: Manifest, signers: Iterable[Signer]) -> str:
    """Check that one of these signers signed every file of a pin; return its `signer_id`.

    Args:
        bundle: Text of the signature's file.
        manifest: Whose files are meant. The statement may name more: a card, a licence.
        signers: Who may.

    Raises:
        PinError: If the signature is none, by nobody of these, or over other bytes.
    """
    parsed = _parse(_Bundle, bundle)
    payload = _decoded(parsed.envelope.payload)
    signature = _decoded(parsed.envelope.signatures[0].sig)
    chain = parsed.material.chain
    leaf = None if chain is None else _leaf(_decoded(chain.certificates[0].raw_bytes))
    found = next((s for s in signers if _signed_by(s, leaf, payload, signature)), None)
    if found is None:
        raise PinError(
            "the model is signed by nobody who may", field=FIELD, hint="name the signer's key: --signer FILE"
        )
    _verify_statement(_parse(_Statement, payload.decode("utf-8", "replace")), manifest)
    return signer_id(found)


def _signed_by(signer: Signer, leaf: x509.Certificate | None, payload: bytes, signature: bytes) -> bool:
    if isinstance(signer, x509.Certificate):
        if leaf is None or not _is_vouched_for(leaf, signer):
            return False
        key: Any = leaf.public_key()
    else:
        key = signer
    # DSSE's pre-authentication encoding: what kind of payload it is, is signed too.
    signed = b"DSSEv1 %d %s %d %s" % (len(_IN_TOTO), _IN_TOTO.encode("ascii"), len(payload), payload)
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, signed)
        elif isinstance(key, ec.EllipticCurvePublicKey) and _is_nist(key):
            key.verify(signature, signed, ec.ECDSA(_HASHES[key.key_size]))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _is_vouched_for(leaf: x509.Certificate, signer: x509.Certificate) -> bool:
    """Whether a bundle's certificate is the signer's own, or was issued by it for signatures.

    When it signed nobody can say, since there is no time stamp: as in the reference, the issuer must have been valid when the
    certificate began.
    """
    if leaf == signer:
        return True
    try:
        leaf.verify_directly_issued_by(signer)
        issues = signer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    began = leaf.not_valid_before_utc
    return issues and signer.not_valid_before_utc <= began <= signer.not_valid_after_utc and _may_sign(leaf)


def _may_sign(leaf: x509.Certificate) -> bool:
    try:
        usages = {type(extension.value): extension.value for extension in leaf.extensions}
    except ValueError:
        return False
    usage, extended = usages.get(x509.KeyUsage), usages.get(x509.ExtendedKeyUsage)
    if isinstance(usage, x509.KeyUsage) and usage.digital_signature:
        return True
    return isinstance(extended, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in extended


def _verify_statement(statement: _Statement, manifest: Manifest) -> None:
    """Check that the statement is whole and names every file of the pin with its digest."""
    resources = statement.predicate.resources
    root = hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in resources)).hexdigest()
    if root != statement.subject[0].digest.sha256:
        raise PinError("the signature's list of files has another digest than its subject", field=FIELD)
    named = {resource.name: resource.digest for resource in resources}
    if len(named) != len(resources):
        raise PinError("the signature names a file twice", field=FIELD)
    if list(named) == [_WHOLE_MODEL] and len(manifest.files) == 1:
        named = {manifest.files[0].path: named[_WHOLE_MODEL]}
    for index, pinned in enumerate(manifest.files):
        if named.get(pinned.path) != pinned.sha256:
            raise PinError("the signature is not over these bytes", field=f"files.{index}")


def _parse(schema: type[T], text: str) -> T:
    try:
        if len(text) > MAX_BYTES:
            raise ValueError
        return schema.parse(json.loads(text))
    except RefusedError as refused:
        reason = "not a signature of a model by a key or a certificate"
        raise PinError(reason, field=f"{FIELD}.{refused.field}") from None
    except (ValueError, RecursionError):
        raise PinError("the signature is not JSON", field=FIELD) from None


def _leaf(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise PinError("the signature's certificate is none", field=FIELD) from error


def _decoded(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise PinError("the signature is not base64", field=FIELD) from error


def _is_nist(key: ec.EllipticCurvePublicKey) -> bool:
    return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1)

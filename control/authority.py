"""The internal certificate authority: nodes' and the console's TLS certificates (RFC 5280), nothing else.

The CA may name nothing outside `appliance.internal` (name constraints, section 4.2.1.10), so a client that trusts it
too widely does not hand its operator the rest of the Internet.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.core.errors import RefusedError

DOMAIN = "appliance.internal"
LIFETIME = timedelta(days=397)  # what browsers accept at most
CA_LIFETIME = timedelta(days=3650)
CLOCK_SLACK = timedelta(minutes=5)  # a client's or node's clock may lag that far


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_ca_certificate(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a self-signed CA certificate for this key (PEM)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sovereign Appliance CA")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(DOMAIN)], None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pem(builder.sign(key, hashes.SHA256()))


@dataclass(frozen=True)
class Authority:
    """The CA's key and certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate_pem: str

    def issue(self, public_key: ec.EllipticCurvePublicKey, names: tuple[str, ...]) -> str:
        """Return a server certificate (PEM).

        Args:
            public_key: ECDSA P-256.
            names: Subject alternative names: addresses, or host names under `appliance.internal`.
        """
        issuer = x509.load_pem_x509_certificate(self.certificate_pem.encode("ascii"))
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(issuer.subject, x509.Name([]), public_key, x509.random_serial_number())
            .not_valid_before(now - CLOCK_SLACK)
            .not_valid_after(min(now + LIFETIME, issuer.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            # Critical, since the subject is empty (section 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        return _pem(builder.sign(self.key, hashes.SHA256()))


def parse_tls_request(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the key that a certificate request (PKCS #10, RFC 2986) asks for. Nothing else in it counts.

    Raises:
        RefusedError: If it is not one, is not signed by its own key, or asks for a key that is not P-256.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        signed = request.is_signature_valid
        key = request.public_key()
    except ValueError as error:
        raise RefusedError("not a certificate request", field="tls_request") from error
    if not signed:
        raise RefusedError("not signed by its own key", field="tls_request")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RefusedError("not an ECDSA P-256 key", field="tls_request")
    return key


def public_key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return digest.finalize().hex()


def expires_at(certificate_pem: str) -> datetime:
    """Return when a certificate ends."""
    return x509.load_pem_x509_certificate(certificate_pem.encode("ascii")).not_valid_after_utc


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

"""The node's own keys: made here on first use, never leaving, never overwritten.

Source: RFC 7748 (X25519), RFC 5915 and RFC 2986 (TLS key and certificate request).
"""

from __future__ import annotations

import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from appliance.core.bundle import Bundle
from appliance.core.errors import BundleError, HostError
from appliance.core.names import decode_base64, encode_base64
from appliance.core.storage import write_new
from netops.nginx import node_host


class Identity:
    """The WireGuard key and the TLS key.

    Args:
        folder: NodePaths.keys, 0700.
        node: The node's name.
    """

    def __init__(self, folder: Path, node: str) -> None:
        self._wireguard = folder / "wireguard.key"
        self._tls = folder / "tls.key"
        self._host = node_host(node)
        self._lock = threading.Lock()

    def wireguard_public_key(self) -> str:
        """Return the public half of the WireGuard key, made now if there is none.

        Raises:
            HostError: If the file does not hold a key.
        """
        with self._lock:
            if not self._wireguard.exists():
                raw = X25519PrivateKey.generate().private_bytes_raw()
                write_new(self._wireguard, f"{encode_base64(raw)}\n".encode("ascii"), 0o600)
            try:
                raw = decode_base64(self._wireguard.read_text("ascii").strip())
                return encode_base64(X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw())
            except (OSError, ValueError) as error:
                raise HostError(f"{self._wireguard} does not hold a WireGuard key") from error

    def tls_request(self) -> str:
        """Return the certificate request (PEM) for the TLS key, made now if there is none."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._host)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        # The tunnel addresses are control's to know; it adds them when it signs.
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(self._host)]), critical=False
        )
        request = builder.sign(self._tls_key(), hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def verify_certificate(self, bundle: Bundle) -> None:
        """Check that a bundle's certificate, if it has one, is for this node's TLS key.

        Raises:
            BundleError: Naming the field.
        """
        if bundle.tls is None:
            return
        try:
            leaf, *_ = x509.load_pem_x509_certificates(bundle.tls.certificate.encode("ascii"))
        except ValueError as error:
            raise BundleError("not a certificate", field="tls.certificate") from error
        if _public_bytes(leaf.public_key()) != _public_bytes(self._tls_key().public_key()):
            raise BundleError("not for this node's TLS key", field="tls.certificate")

    def _tls_key(self) -> ec.EllipticCurvePrivateKey:
        with self._lock:
            if not self._tls.exists():
                write_new(self._tls, _pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
            try:
                key = serialization.load_pem_private_key(self._tls.read_bytes(), password=None)
            except (OSError, ValueError) as error:
                raise HostError(f"{self._tls} does not hold a private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise HostError(f"{self._tls} does not hold an ECDSA key")
        return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_bytes(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)

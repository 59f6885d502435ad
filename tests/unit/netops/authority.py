"""A certificate authority for tests: answers a node's certificate request as control does."""

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.netops import cast

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])


@cache
def _key():
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ca():
    """Return the authority's own certificate (PEM)."""
    return _issue(NAME, _key().public_key(), [])


def issue(request_pem):
    """Sign a request, with the node's name and tunnel addresses (PEM)."""
    request = x509.load_pem_x509_csr(request_pem.encode())
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = (cast.TUNNEL.address4, cast.TUNNEL.address6)
    every = [*names, *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    return _issue(request.subject, request.public_key(), every)


def _issue(subject, key, names):
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(NAME)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

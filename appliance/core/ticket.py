"""The ticket: an invitation as it is shown, once, to whoever shall enrol a device. One line of text, or the same in a QR code.

    sai1_<base64url of: body, then the first 4 bytes of its SHA-256>

The body has one spelling: fixed fields in network byte order, three short texts with their lengths in front, the CA's certificate (DER)
to the end. Everything secret in it is one number of 256 bits, of which the four secrets of the exchange are derived (HKDF, RFC 5869).

Normative text: docs/spec/enrolment-v1.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import ssl
import struct
from dataclasses import dataclass, field
from typing import Annotated, Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field, StringConstraints

from appliance.core.bundle import Pem
from appliance.core.errors import RefusedError, UsageError
from appliance.core.names import Address4, Address6, Key32, Name, decode_base64, encode_base64, packed
from appliance.core.schema import Closed

PREFIX: Final = "sai1_"  # by which a person, and a secret scanner, knows it
MAX_TICKET_CHARACTERS: Final = 2900  # a QR code holds 2,953 bytes
Endpoint = Annotated[str, StringConstraints(max_length=255, pattern=r"^[a-z0-9\[][a-z0-9.:\]-]*:[0-9]{1,5}$")]
"""Host and port, as WireGuard takes them."""

_FIXED: Final = struct.Struct(">BIH32s32s4s16s4s16s")
_CHECKSUM_BYTES: Final = 4


class Ticket(Closed):
    """What an invitation says.

    Attributes:
        client, device: Whose device is enrolled, and its name.
        approval: An operator compares the fingerprint of the device's key before it is let in.
        expires_at: Seconds since 1970; from then on it is worth nothing.
        secret: 32 random bytes, base64.
        endpoint, node_public_key: The node as WireGuard sees it.
        node4, node6: The node's tunnel addresses.
        address4, address6: The tunnel addresses of the throw-away peer.
        mtu: Of the tunnel, in bytes.
        ca_pem: The CA that signed the node's TLS certificate.
    """

    client: Name
    device: Name
    approval: bool
    expires_at: Annotated[int, Field(ge=0, le=2**32 - 1)]
    secret: Key32
    endpoint: Endpoint
    node_public_key: Key32
    node4: Address4
    node6: Address6
    address4: Address4
    address6: Address6
    mtu: Annotated[int, Field(ge=1280, le=9000)]
    ca_pem: Pem

    @property
    def keys(self) -> TicketKeys:
        """The secrets of the exchange."""
        return TicketKeys.derive(decode_base64(self.secret))

    def render(self) -> str:
        """Return the one line.

        Raises:
            RefusedError: If the CA is more than one certificate, or too long to be shown.
        """
        body = _FIXED.pack(
            self.approval,
            self.expires_at,
            self.mtu,
            decode_base64(self.secret),
            decode_base64(self.node_public_key),
            *(packed(address) for address in (self.node4, self.node6, self.address4, self.address6)),
        )
        body += b"".join(_short(text) for text in (self.endpoint, self.client, self.device))
        body += _der(self.ca_pem)
        text = PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode("ascii").rstrip("=")
        if len(text) > MAX_TICKET_CHARACTERS:
            raise RefusedError("too long for a ticket", field="ca_pem")
        return text

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a ticket; white space in it, as mail programs put it there, does not count.

        Raises:
            UsageError: If it is none, or was mistyped.
            RefusedError: If it is whole and says what no invitation says.
        """
        body = _body("".join(text.split()))
        try:
            approval, expires_at, mtu, secret, node_key, *addresses = _FIXED.unpack_from(body)
            rest = body[_FIXED.size :]
            texts = []
            for _ in range(3):
                length, rest = rest[0], rest[1:]
                texts.append(rest[:length].decode("ascii"))
                rest = rest[length:]
            ca_pem = ssl.DER_cert_to_PEM_cert(rest)
        except (struct.error, IndexError, ValueError) as error:
            raise RefusedError("the invitation is of another version") from error
        endpoint, client, device = texts
        node4, node6, address4, address6 = (str(ipaddress.ip_address(raw)) for raw in addresses)
        ticket = cls.parse(
            {
                "client": client,
                "device": device,
                "approval": bool(approval),
                "expires_at": expires_at,
                "secret": encode_base64(secret),
                "endpoint": endpoint,
                "node_public_key": encode_base64(node_key),
                "node4": node4,
                "node6": node6,
                "address4": address4,
                "address6": address6,
                "mtu": mtu,
                "ca_pem": ca_pem,
            }
        )
        if ticket.render() != "".join(text.split()):
            raise RefusedError("the invitation is a second spelling of another")
        return ticket


@dataclass(frozen=True)
class TicketKeys:
    """The four secrets of one exchange. Control forgets the first two when the ticket was shown.

    Attributes:
        private_key: Of the throw-away WireGuard peer, 32 bytes.
        redeem: What the node's mailbox asks for; it and control know its SHA-256.
        preshared_key: Of the throw-away peer, 32 bytes.
        box: Closes what the device and control's reconciler tell each other past the node, 32 bytes.
    """

    private_key: bytes = field(repr=False)
    redeem: str = field(repr=False)
    preshared_key: bytes = field(repr=False)
    box: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes) -> Self:
        """Derive them from a ticket's secret."""

        def one(label: str) -> bytes:
            info = f"sovereign-appliance/invitation/v1/{label}".encode("ascii")
            return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret)

        redeem = base64.urlsafe_b64encode(one("redeem")).decode("ascii").rstrip("=")
        return cls(_clamp(one("wireguard")), redeem, one("preshared"), one("box"))

    @property
    def public_key(self) -> str:
        """WireGuard public key of the throw-away peer."""
        public = X25519PrivateKey.from_private_bytes(self.private_key).public_key()
        return encode_base64(public.public_bytes_raw())

    @property
    def redeem_sha256(self) -> str:
        """What control and node know of `redeem`."""
        return redeem_digest(self.redeem)


def redeem_digest(text: str) -> str:
    """Return the digest under which a redeeming secret is known. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _body(text: str) -> bytes:
    if not text.startswith(PREFIX):
        raise UsageError(
            f"not an invitation: one begins with {PREFIX}", hint="paste the whole line, or name its file"
        )
    encoded = text.removeprefix(PREFIX)
    try:
        if len(text) > MAX_TICKET_CHARACTERS:
            raise ValueError("too long")
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=") != encoded:
            raise ValueError("a second spelling")
    except (ValueError, binascii.Error) as error:
        raise _mistyped() from error
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body):
        raise _mistyped()
    return body


def _mistyped() -> UsageError:
    return UsageError(
        "the invitation was mistyped or cut short", hint="copy the whole line again, or scan the QR code"
    )


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]


def _short(text: str) -> bytes:
    raw = text.encode("ascii")
    return bytes([len(raw)]) + raw


def _der(pem: str) -> bytes:
    try:
        der = ssl.PEM_cert_to_DER_cert(pem)
    except ValueError as error:
        raise RefusedError("not one certificate", field="ca_pem") from error
    if ssl.DER_cert_to_PEM_cert(der) != pem:
        raise RefusedError("not one certificate in its usual spelling", field="ca_pem")
    return der


def _clamp(raw: bytes) -> bytes:
    """Return the bytes as a private key (RFC 7748 section 5), as wg(8) prints it."""
    key = bytearray(raw)
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)

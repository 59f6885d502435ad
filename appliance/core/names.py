"""The types of names, keys and addresses that appear in more than one contract.

They are pydantic-annotated types so that a closed schema states them once and every refusal names its field.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import secrets
import socket
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

# A client, device, node or model name becomes a file name, a unit instance and a namespace name: so nothing that a
# shell, a path or a unit file could read as syntax, and short enough for a socket path (108 bytes, unix(7)).
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_CHARACTERS = 32


def _name(value: str) -> str:
    if len(value) > _NAME_CHARACTERS or not _NAME.fullmatch(value):
        raise ValueError("1 to 32 lower-case letters, digits and single hyphens, a letter first")
    return value


Name = Annotated[str, AfterValidator(_name)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}(\.[0-9]{1,5}){1,3}$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,14}$")]  # IFNAMSIZ, netdevice(7)

Hex128 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits as 32 lower-case hexadecimal digits: session, receipt and boot ids."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest as 64 lower-case hexadecimal digits."""

Timestamp = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$")
]
"""RFC 3339 in UTC with milliseconds, always `Z`."""

UnixTime = Annotated[int, Field(ge=1, le=253_402_300_799)]
"""Seconds since 1970 in UTC, up to the end of the year 9999."""

ZERO_DIGEST = "0" * 64


def _key32(value: str) -> str:
    raw = decode_base64(value)
    if len(raw) != 32:
        raise ValueError("not 32 bytes of base64")
    if not any(raw):
        raise ValueError("the all-zero key")
    return value


def decode_base64(value: str) -> bytes:
    """Decode standard base64 in its one canonical spelling (RFC 4648 section 4, padding bits zero).

    Raises:
        ValueError: If the text is not base64 or is a second spelling of the same bytes.
    """
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error
    if base64.b64encode(raw).decode("ascii") != value:
        raise ValueError("not canonical base64")
    return raw


def encode_base64(raw: bytes) -> str:
    """Return canonical standard base64 text of `raw`."""
    return base64.b64encode(raw).decode("ascii")


Key32 = Annotated[str, AfterValidator(_key32)]
"""A WireGuard or Ed25519 public key, or a pre-shared key: 32 bytes as canonical base64 (44 characters), not zero."""


def packed(address: str) -> bytes:
    """Return an address as 4 or 16 bytes in network order, so that addresses of a network lie between its first and last.

    By the C library: a bundle holds twenty thousand addresses, and `ipaddress` takes twenty times as long for each.

    Raises:
        ValueError: If it is none. Zones (RFC 4007, `fe80::1%text`) are none: they may hold any text.
    """
    try:
        return socket.inet_pton(_family(address), address)
    except OSError as error:
        raise ValueError("not an address") from error


def is_canonical_address(address: str) -> bool:
    """Return whether a text is the one spelling of its address (for IPv6: RFC 5952 section 4).

    Raises:
        ValueError: If it is no address.
    """
    written = socket.inet_ntop(_family(address), packed(address))
    if ":" in written and "." in written:  # inet_ntop(3) writes embedded IPv4 addresses in its own way
        written = str(ipaddress.IPv6Address(address))
    return written == address


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _host4(value: str) -> str:
    if ":" in value or not is_canonical_address(value):
        raise ValueError("not the canonical text of an IPv4 address")
    return value


def _host6(value: str) -> str:
    if ":" not in value or not is_canonical_address(value):
        raise ValueError("not the canonical text of an IPv6 address (RFC 5952)")
    return value


def _network4(value: str) -> str:
    if str(ipaddress.IPv4Network(value)) != value:
        raise ValueError("not the canonical text of an IPv4 network")
    return value


def _network6(value: str) -> str:
    if "%" in value or str(ipaddress.IPv6Network(value)) != value:
        raise ValueError("not the canonical text of an IPv6 network")
    return value


Address4 = Annotated[str, AfterValidator(_host4)]
Address6 = Annotated[str, AfterValidator(_host6)]
Network4 = Annotated[str, AfterValidator(_network4)]
Network6 = Annotated[str, AfterValidator(_network6)]


def random_id() -> str:
    """Return 128 random bits as 32 lower-case hexadecimal digits."""
    return secrets.token_hex(16)

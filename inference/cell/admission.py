"""Who may speak: the tunnel address says which device it claims to be, the bearer token proves it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Iterable

from appliance.core.names import ZERO_DIGEST
from appliance.core.policy import DeviceAccess, Policy
from inference.cell.errors import Refusal

Headers = Iterable[tuple[bytes, bytes]]


class Admission:
    """The devices of one policy by address.

    Args:
        policy: That is in force.
        clock: Seconds since 1970.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._devices = {
            address: device for device in policy.devices for address in (device.address4, device.address6)
        }

    def admit(self, headers: Headers) -> DeviceAccess:
        """Return the device that sent a request with these headers.

        Each header must be there exactly once: two of them would let a proxy and the cell read different ones.

        Raises:
            Refusal: `invalid_api_key`, whatever the reason; a guesser learns nothing about which half was right. `key_expired` for
                the right token of a key that has come to its end.
        """
        peer = single_header(headers, b"x-peer-address")
        authorization = single_header(headers, b"authorization")
        device = self._devices.get(_normalise(peer)) if peer else None
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        expected = device.token_sha256 if device else ZERO_DIGEST
        matches = hmac.compare_digest(digest, expected)
        if device is None or not matches or scheme.lower() != b"bearer":
            raise Refusal("invalid_api_key")
        if device.expires_at is not None and device.expires_at <= self._clock():
            raise Refusal("key_expired")
        return device


def single_header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header that occurs exactly once, else None.

    Args:
        headers: Names in lower case, as ASGI gives them.
        name: In lower case.
    """
    found = [value for key, value in headers if key == name]
    return found[0] if len(found) == 1 else None


def _normalise(address: bytes) -> str:
    # NGINX spells IPv6 addresses nearly, but not by contract, as RFC 5952 does.
    try:
        return str(ipaddress.ip_address(address.decode("ascii")))
    except ValueError:
        return ""

"""The client's policy as a file that the agent replaces: read at start and again whenever it is another file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from appliance.core.errors import RefusedError
from appliance.core.policy import Policy

Credentials = frozenset[tuple[str, str, str]]
"""Of devices (`DeviceAccess.credential`)."""


class ClientRevokedError(Exception):
    """There is no policy for this client any more: none, one that says so, or one that cannot be understood.

    Attributes:
        expired: The client has come to its end.
    """

    def __init__(self, *, expired: bool = False) -> None:
        super().__init__()
        self.expired = expired


class PolicyFile:
    """The policy in force.

    Args:
        path: `policy.json` in the client's folder.
        client: The name that the cell was started for.
        clock: Seconds since 1970.

    Raises:
        ClientRevokedError: As `refresh`.
    """

    def __init__(self, path: Path, client: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._client = client
        self._clock = clock
        self._identity: tuple[int, int] | None = None
        self.current: Policy = self._read()
        self._verify_lasts(self.current)

    def refresh(self) -> Credentials | None:
        """Read the policy again if it is another file.

        Returns:
            The credentials that are admitted no longer, or None if nothing changed.

        Raises:
            ClientRevokedError: If the file is missing, unreadable, another client's, or says `revoked`, or the client has come to its
                end. An unreadable policy admits nobody.
        """
        self._verify_lasts(self.current)
        try:
            status = self._path.stat()
        except OSError:
            raise ClientRevokedError from None
        if (status.st_ino, status.st_mtime_ns) == self._identity:
            return None
        before = _credentials(self.current)
        self.current = self._read()
        return before - _credentials(self.current)

    def ended(self) -> Credentials:
        """Return the credentials of devices whose key has come to its end."""
        now = self._clock()
        if now < self._first_end:
            return frozenset()
        devices = self.current.devices
        return frozenset(d.credential for d in devices if d.expires_at is not None and d.expires_at <= now)

    def _verify_lasts(self, policy: Policy) -> None:
        if policy.expires_at is not None and policy.expires_at <= self._clock():
            raise ClientRevokedError(expired=True)

    def _read(self) -> Policy:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                policy = Policy.parse_canonical(file.read())
        except (OSError, RefusedError):
            raise ClientRevokedError from None
        if policy.revoked or policy.client != self._client:
            raise ClientRevokedError
        self._identity = (status.st_ino, status.st_mtime_ns)
        self._first_end = min((d.expires_at for d in policy.devices if d.expires_at is not None), default=inf)
        return policy


def _credentials(policy: Policy) -> Credentials:
    return frozenset(device.credential for device in policy.devices)

"""The client's policy as a file that the agent replaces: read at start and again whenever it is another file."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.core.errors import RefusedError
from appliance.core.policy import DeviceAccess, Policy


class ClientRevokedError(Exception):
    """There is no policy for this client any more: none, one that says so, or one that cannot be understood."""


class PolicyFile:
    """The policy in force.

    Args:
        path: `policy.json` in the client's folder.
        client: The name that the cell was started for.

    Raises:
        ClientRevokedError: As `refresh`.
    """

    def __init__(self, path: Path, client: str) -> None:
        self._path = path
        self._client = client
        self._identity: tuple[int, int] | None = None
        self.current: Policy = self._read()

    def refresh(self) -> frozenset[DeviceAccess] | None:
        """Read the policy again if it is another file.

        Returns:
            The devices that are admitted no longer, or None if nothing changed. A device whose token or address
            changed counts as gone: what admitted its requests is no longer so.

        Raises:
            ClientRevokedError: If the file is missing, unreadable, another client's, or says `revoked`. An unreadable
                policy admits nobody.
        """
        try:
            status = self._path.stat()
        except OSError:
            raise ClientRevokedError from None
        if (status.st_ino, status.st_mtime_ns) == self._identity:
            return None
        before = frozenset(self.current.devices)
        self.current = self._read()
        return before - frozenset(self.current.devices)

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
        return policy

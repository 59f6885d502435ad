"""The roster: which clients the notary serves. Kept beside the journal, so that a restarted notary serves at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from appliance.core.errors import HostError, RefusedError
from appliance.core.names import Digest, Name
from appliance.core.schema import Closed
from inference.notary.journal import JournalUnavailableError, sync_folder

MAX_CLIENTS = 4096


class Client(Closed):
    """One client: the name decides the socket's path, the pseudonym goes into receipts."""

    name: Name
    pseudonym: Digest


class Roster(Closed):
    """The whole set."""

    clients: Annotated[tuple[Client, ...], Field(max_length=MAX_CLIENTS)]

    def by_name(self) -> dict[str, Client]:
        """Return the clients by name.

        Raises:
            RefusedError: If a name or a pseudonym is there twice.
        """
        named = {client.name: client for client in self.clients}
        if len(named) < len(self.clients) or len({c.pseudonym for c in self.clients}) < len(self.clients):
            raise RefusedError("a name or pseudonym is there twice", field="clients")
        return named


def read_roster(path: Path) -> Roster:
    """Read the roster; an empty one if there is none yet. Raises HostError if it cannot be understood."""
    try:
        return Roster.parse_canonical(path.read_bytes())
    except FileNotFoundError:
        return Roster(clients=())
    except (OSError, RefusedError) as error:
        raise HostError(f"cannot read {path}", hint="remove it and apply the bundle again") from error


def write_roster(path: Path, roster: Roster) -> None:
    """Replace the roster atomically and durably. Raises JournalUnavailableError."""
    beside = path.with_suffix(".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(roster.canonical_bytes())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise JournalUnavailableError("the roster cannot be written", hint="free disk space") from error

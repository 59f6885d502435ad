"""The roster: which clients the notary serves. Kept beside the journal, so that a restarted notary serves at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from appliance.core.bundle import Counted
from appliance.core.errors import HostError, RefusedError
from appliance.core.names import Digest, Name
from appliance.core.schema import Closed
from appliance.core.storage import write_atomic
from inference.notary.budget import Budget
from inference.notary.journal import JournalUnavailableError

MAX_CLIENTS = 4096


class Client(Closed):
    """One client: the name decides the socket's path, the pseudonym goes into receipts, and it has so much of each day."""

    name: Name
    pseudonym: Digest
    requests_per_day: Counted = None
    tokens_per_day: Counted = None

    @property
    def budget(self) -> Budget:
        """What it may use of a day."""
        return Budget(self.requests_per_day, self.tokens_per_day)


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
    try:
        write_atomic(path, roster.canonical_bytes(), 0o600, durable=True)
    except OSError as error:
        raise JournalUnavailableError("the roster cannot be written", hint="free disk space") from error

"""Whom the mailbox knows: rendered from the bundle by the agent, read by the mailbox. Pure but for reading the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from appliance.core.box import Box
from appliance.core.bundle import MAX_GUESTS, Guest
from appliance.core.errors import RefusedError
from appliance.core.names import Address4, Address6, Digest
from appliance.core.schema import Closed


class Entry(Closed):
    """A guest as the mailbox needs it: no key of its tunnel."""

    address4: Address4
    address6: Address6
    answer: Box | None
    expires_at: Annotated[int, Field(ge=0, le=2**32 - 1)]
    secret_sha256: Digest


class Roster(Closed):
    """All of them."""

    guests: Annotated[tuple[Entry, ...], Field(max_length=MAX_GUESTS)]
    v: Literal[1] = 1

    def digests(self) -> frozenset[str]:
        """Return the digests of their secrets, which name their letters."""
        return frozenset(entry.secret_sha256 for entry in self.guests)


def render_roster(guests: Iterable[Guest]) -> bytes:
    """Return the roster's file."""
    kept = set(Entry.model_fields)
    return Roster(
        guests=tuple(Entry(**guest.model_dump(include=kept)) for guest in guests),
    ).canonical_bytes()


def parse_roster(data: bytes) -> Roster:
    """Read a roster; what is none is an empty one: nobody is known then."""
    try:
        return Roster.parse_canonical(data)
    except RefusedError:
        return Roster(guests=())


class RosterFile:
    """The roster in force, read again when its file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._by_address: dict[str, Entry] = {}

    def find(self, address: str) -> Entry | None:
        """Return whose tunnel address this is."""
        self._refresh()
        return self._by_address.get(address)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            roster = parse_roster(self._path.read_bytes())
        except FileNotFoundError:
            seen, roster = None, Roster(guests=())
        self._by_address = {address: e for e in roster.guests for address in (e.address4, e.address6)}
        self._seen = seen

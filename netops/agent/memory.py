"""What the agent remembers over restarts: the accepted bundle, and what was granted and revoked since.

Files, in NodePaths.state (0700):
    accepted.json     epoch, generation and digest of the newest bundle that is in force
    bundle.json       that bundle's text and signature, applied again at start while control may be down
    grants.json       what may connect although the accepted bundle does not hold it
    revocations.json  what must stay away although the accepted bundle or a grant holds it
    raised.json       the epoch that the restore key raised this node to
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from appliance.core.bundle import Accepted, Bundle, Client, Generation, Grant, node_epoch
from appliance.core.errors import HostError, RefusedError
from appliance.core.names import Key32, Name
from appliance.core.schema import Closed
from appliance.core.storage import read_or_none, write_atomic


class Removed(Closed):
    """Devices and clients that must not come back before a newer generation than this one.

    Attributes:
        epoch, generation: A bundle of this epoch with a greater generation, or of another epoch, knows about it.
        public_keys: Devices.
        clients: Clients with all their devices.
    """

    epoch: Generation
    generation: Generation
    public_keys: tuple[Key32, ...]
    clients: tuple[Name, ...]


class _GrantsFile(Closed):
    granted: Annotated[tuple[Grant, ...], Field(max_length=100_000)]


class _RaisedFile(Closed):
    epoch: Generation


class _RemovedFile(Closed):
    removed: Annotated[tuple[Removed, ...], Field(max_length=100_000)]


@dataclass(frozen=True)
class Signed:
    """A bundle as it came."""

    text: str
    signature: str


class Memory:
    """The agent's memory. Thread-safe: a grant or a revocation may come while a bundle is being applied.

    Raises:
        HostError: If a file is there and is not what the agent wrote; nothing is guessed.
    """

    def __init__(self, folder: Path) -> None:
        self._accepted_file = folder / "accepted.json"
        self._bundle_file = folder / "bundle.json"
        self._granted_file = folder / "grants.json"
        self._removed_file = folder / "revocations.json"
        self._raised_file = folder / "raised.json"
        self._lock = threading.Lock()
        self._mark = 0
        self._accepted = self._read_accepted()
        self._granted = self._read_granted()
        self._removed = self._read_removed()
        self._raised = self._read_raised()
        self._bundle: Bundle | None = None
        self._signed: Signed | None = None

    @property
    def accepted(self) -> Accepted | None:
        """What was accepted last."""
        return self._accepted

    @property
    def raised(self) -> int:
        """The epoch that the restore key raised this node to last, 0 if it never did."""
        return self._raised

    @property
    def epoch(self) -> int:
        """The node's epoch, 0 before its first bundle."""
        return node_epoch(self._accepted, self._raised)

    @property
    def bundle(self) -> Bundle | None:
        """The accepted bundle, once it was read or applied."""
        return self._bundle

    @property
    def mark(self) -> int:
        """Changes whenever something is granted or removed; a plan that was made before is stale."""
        return self._mark

    def stored(self) -> Signed | None:
        """Return the stored bundle's text and signature, None on a fresh node."""
        data = read_or_none(self._bundle_file)
        if data is None:
            return None
        try:
            value = json.loads(data)
            return Signed(str(value["bundle"]), str(value["signature"]))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self._bundle_file) from error

    def recall(self, bundle: Bundle, signed: Signed) -> None:
        """Take the stored bundle, verified by the caller, as the one in force."""
        self._bundle, self._signed = bundle, signed

    def verified(self, signed: Signed) -> Bundle | None:
        """Return the bundle in force if this is it, byte for byte with its signature: it was verified before."""
        return self._bundle if signed == self._signed else None

    def accept(self, bundle: Bundle, signed: Signed) -> Accepted:
        """Remember a bundle that is in force, and forget what it makes needless."""
        accepted = Accepted(epoch=bundle.epoch, generation=bundle.generation, digest=bundle.digest)
        with self._lock:
            if accepted != self._accepted:
                # The text first: after a power cut between the two, the newer text is verified and applied again.
                text = json.dumps({"bundle": signed.text, "signature": signed.signature}).encode("utf-8")
                write_atomic(self._bundle_file, text, 0o600, durable=True)
                write_atomic(self._accepted_file, accepted.canonical_bytes(), 0o600, durable=True)
            self._accepted, self._bundle, self._signed = accepted, bundle, signed
            granted = tuple(grant for grant in self._granted if _concerns(grant, bundle))
            if granted != self._granted:
                self._granted = granted
                self._save_granted()
            removed = tuple(removed for removed in self._removed if _concerns(removed, bundle))
            if removed != self._removed:
                self._removed = removed
                self._save_removed()
        return accepted

    def grant(self, grant: Grant) -> None:
        """Remember a grant: in force at once, and on the disk."""
        with self._lock:
            if grant not in self._granted:
                self._granted = (*self._granted, grant)
                self._save_granted()
            self._mark += 1

    def granted_to(self, bundle: Bundle) -> tuple[Client, ...]:
        """Return the clients with the devices that this bundle does not know of yet, and may connect."""
        return tuple(
            client for grant in self._granted if _concerns(grant, bundle) for client in grant.clients
        )

    def raise_epoch(self, epoch: int) -> None:
        """Remember a raised epoch, verified by the caller; in force once it is on the disk."""
        with self._lock:
            write_atomic(self._raised_file, _RaisedFile(epoch=epoch).canonical_bytes(), 0o600, durable=True)
            self._raised = epoch

    def remove(self, removed: Removed) -> None:
        """Remember a removal; in force at once, on the disk after `save`."""
        if not removed.public_keys and not removed.clients:
            return
        with self._lock:
            if removed not in self._removed:
                self._removed = (*self._removed, removed)
            self._mark += 1

    def save(self) -> None:
        """Write the removals to the disk."""
        with self._lock:
            self._save_removed()

    def removed_from(self, bundle: Bundle) -> tuple[frozenset[str], frozenset[str]]:
        """Return the public keys and clients that must stay out of this bundle."""
        concerned = [removed for removed in self._removed if _concerns(removed, bundle)]
        keys = frozenset(key for removed in concerned for key in removed.public_keys)
        return keys, frozenset(client for removed in concerned for client in removed.clients)

    def _save_granted(self) -> None:
        # As bundle.json, it holds pre-shared keys.
        data = _GrantsFile(granted=self._granted).canonical_bytes()
        write_atomic(self._granted_file, data, 0o600, durable=True)

    def _save_removed(self) -> None:
        data = _RemovedFile(removed=self._removed).canonical_bytes()
        write_atomic(self._removed_file, data, 0o600, durable=True)

    def _read_accepted(self) -> Accepted | None:
        data = read_or_none(self._accepted_file)
        if data is None:
            return None
        try:
            return Accepted.parse_canonical(data)
        except RefusedError as error:
            raise _damaged(self._accepted_file) from error

    def _read_granted(self) -> tuple[Grant, ...]:
        data = read_or_none(self._granted_file)
        if data is None:
            return ()
        try:
            return _GrantsFile.parse_canonical(data).granted
        except RefusedError as error:
            raise _damaged(self._granted_file) from error

    def _read_raised(self) -> int:
        data = read_or_none(self._raised_file)
        if data is None:
            return 0
        try:
            return _RaisedFile.parse_canonical(data).epoch
        except RefusedError as error:
            raise _damaged(self._raised_file) from error

    def _read_removed(self) -> tuple[Removed, ...]:
        data = read_or_none(self._removed_file)
        if data is None:
            return ()
        try:
            return _RemovedFile.parse_canonical(data).removed
        except RefusedError as error:
            raise _damaged(self._removed_file) from error


def difference(old: Bundle, new: Bundle) -> Removed:
    """Return what the new bundle takes away: devices that are gone or moved to another client, and clients.

    A device whose address, key or token changed is not taken away: a failed bundle's change of it is undone.
    """
    before, after = set(_pairs(old)), set(_pairs(new))
    gone = {client.name for client in old.clients} - {client.name for client in new.clients}
    return Removed(
        epoch=old.epoch,
        generation=old.generation,
        public_keys=tuple(sorted(key for _client, key in before - after)),
        clients=tuple(sorted(gone)),
    )


def _concerns(companion: Grant | Removed, bundle: Bundle) -> bool:
    """Return whether it adds to or takes out of this bundle: a later generation, or another epoch, knows about it."""
    return companion.epoch == bundle.epoch and companion.generation >= bundle.generation


def _pairs(bundle: Bundle) -> Iterator[tuple[str, str]]:
    yield from ((client.name, device.public_key) for client in bundle.clients for device in client.devices)
    yield from (("", guest.public_key) for guest in bundle.guests)  # no client has an empty name


def _damaged(path: Path) -> HostError:
    return HostError(
        f"{path} is not what the agent wrote",
        hint="the disk may be failing; restore the file, or provision this node anew under a new name",
    )

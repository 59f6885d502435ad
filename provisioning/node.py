"""The agent's protocol from control's side: one method per operation (docs/spec/node-protocols.md, section 1)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from appliance.core.errors import HostError, RefusedError, UnavailableError
from appliance.core.health import Health, Peers
from appliance.core.heartbeat import SignedHeartbeat
from appliance.core.names import decode_base64
from appliance.core.schema import Closed
from provisioning.answers import (
    Admitted,
    Applied,
    Beat,
    Granted,
    Identity,
    Letter,
    Letters,
    Placed,
    Planned,
    Published,
    PublishedFile,
    Raised,
    Receipts,
    Revoked,
    State,
    Stored,
)
from provisioning.channel import Connection
from provisioning.conversation import Conversation

QUICK_S = 15.0
APPLY_S = 120.0
REVOKE_S = 10.0
GRANT_S = APPLY_S  # it takes part in the pass that runs
SLOWEST_UPLOAD_BYTES_PER_S = 2**20
CHUNK_BYTES = 2**18

T = TypeVar("T", bound=Closed)


class _Lane:
    """One conversation and its lock: requests on a lane wait for each other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._conversation: Conversation | None = None

    def ask(
        self, op: str, fields: dict[str, Any], timeout_s: float, body: Iterator[bytes] | None = None
    ) -> dict[str, Any]:
        with self._lock:
            if self._conversation is None:
                self._conversation = Conversation(self._connection.open_channel())
            try:
                return self._conversation.ask(op, fields, timeout_s, body)
            except UnavailableError:
                self._conversation = None
                raise

    def open(self) -> None:
        with self._lock:
            if self._conversation is None:
                self._conversation = Conversation(self._connection.open_channel())

    def forget(self) -> None:
        with self._lock:
            if self._conversation is not None:
                self._conversation.close()
                self._conversation = None


class NodeClient:
    """A node, over one connection with three lanes.

    Everything goes over the first lane, one request at a time. Revocations go over the second, so that they never wait
    behind a long `apply`, an upload, or a grant that waits for one; grants go over the third. Safe to use from
    several threads.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._main = _Lane(connection)
        self._revocations = _Lane(connection)
        self._grants = _Lane(connection)

    def open(self) -> None:
        """Open every lane now, so that the first revocation pays for no handshake.

        Raises:
            UnavailableError: If the node cannot be reached.
            RefusedError: If the node does not show the pinned host key.
        """
        for lane in (self._main, self._revocations, self._grants):
            lane.open()

    def close(self) -> None:
        """Close the connection; the next request connects anew. A request under way on any lane fails."""
        self._connection.close()
        for lane in (self._main, self._revocations, self._grants):
            lane.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def identity(self) -> Identity:
        """Return who the node is. All methods raise as `Conversation.ask` does."""
        return self._ask(Identity, "identity")

    def state(self) -> State:
        """Return what the node accepted last, and its model files."""
        return self._ask(State, "state")

    def send_model(self, path: Path, sha256: str) -> bool:
        """Upload a model file; return False if the node had it already.

        Raises:
            HostError: If the file cannot be read here.
        """
        try:
            size = path.stat().st_size
        except OSError as error:
            raise HostError(f"cannot read {path}", hint="appliance control model import") from error
        timeout_s = QUICK_S + size / SLOWEST_UPLOAD_BYTES_PER_S
        fields = {"sha256": sha256, "size": size}
        return self._ask(Stored, "model", fields, timeout_s, _chunks(path, size)).stored

    def observe(self) -> dict[str, Any]:
        """Return what the kernel and the file system of the node hold now."""
        return self._main.ask("observe", {}, QUICK_S)

    def plan(self, bundle: str, signature: str) -> Planned:
        """Return what `apply` would do with this bundle."""
        return self._ask(Planned, "plan", {"bundle": bundle, "signature": signature}, APPLY_S)

    def apply(self, bundle: str, signature: str) -> Applied:
        """Bring the node to the state that the bundle says."""
        return self._ask(Applied, "apply", {"bundle": bundle, "signature": signature}, APPLY_S)

    def revoke(self, revocation: str, signature: str) -> Revoked:
        """Cut devices and clients off, on the lane of its own."""
        fields = {"revocation": revocation, "signature": signature}
        return _parse(Revoked, self._revocations.ask("revoke", fields, REVOKE_S))

    def raise_epoch(self, statement: str, signature: str) -> int:
        """Send the restore key's word that the node goes on in a higher epoch; return the epoch it is in."""
        return self._ask(Raised, "raise", {"statement": statement, "signature": signature}).epoch

    def grant(self, grant: str, signature: str) -> Granted:
        """Let devices in, on the lane of its own."""
        return _parse(Granted, self._grants.ask("grant", {"grant": grant, "signature": signature}, GRANT_S))

    def health(self) -> Health:
        """Return the node's health."""
        return self._ask(Health, "health")

    def peers(self) -> Peers:
        """Return which peers are connected, and which are stale."""
        return self._ask(Peers, "peers")

    def receipts(self, after: int, limit: int = 1000) -> Receipts:
        """Return receipts after a position of the node's journal."""
        return self._ask(Receipts, "receipts", {"after": after, "limit": limit}, QUICK_S)

    def letters(self) -> tuple[Letter, ...]:
        """Return what devices that redeem invitations have left in the node's mailbox."""
        return self._ask(Letters, "letters").letters

    def heartbeat(self, nonce: str) -> SignedHeartbeat:
        """Return what the node's notary says of its journal now."""
        return self._ask(Beat, "heartbeat", {"nonce": nonce}).signed

    def note_admitted(self, position: int) -> None:
        """Tell the node that control has the receipts up to a position: it may drop them when it needs the room."""
        self._ask(Admitted, "admitted", {"position": position})

    def publish(self, files: dict[str, str], checkpoint: str) -> int:
        """Send tiles of the log, path to base64, or its checkpoint; return the size that the node publishes now."""
        return self._ask(Published, "publish", {"files": files, "checkpoint": checkpoint}).size

    def published(self, path: str) -> bytes | None:
        """Return a file of the log as the node publishes it, `checkpoint` or a tile; None if it is not there."""
        data = self._ask(PublishedFile, "published", {"path": path}).data
        try:
            return None if data is None else decode_base64(data)
        except ValueError as error:
            raise RefusedError("the node's answer is not base64", field="data") from error

    def places(self, places: list[tuple[str, int]]) -> int:
        """Tell where in the log receipts of the node are; return the place below which it knows them all."""
        records = [{"kind": "place", "receipt": receipt, "place": place} for receipt, place in places]
        return self._ask(Placed, "places", {"places": records}).placed

    def _ask(
        self,
        schema: type[T],
        op: str,
        fields: dict[str, Any] | None = None,
        timeout_s: float = QUICK_S,
        body: Iterator[bytes] | None = None,
    ) -> T:
        return _parse(schema, self._main.ask(op, fields or {}, timeout_s, body))


def _parse(schema: type[T], answer: dict[str, Any]) -> T:
    try:
        return schema.parse(answer)
    except RefusedError as refused:
        raise RefusedError(
            "the node's answer is not what the protocol says",
            field=refused.field,
            hint="is the node of this version?",
        ) from refused


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    """Yield exactly `size` bytes of a file: the node counts them."""
    left = size
    try:
        with path.open("rb") as file:
            while left:
                chunk = file.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise UnavailableError("the file became shorter while it was sent")
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise UnavailableError("the file could not be read while it was sent") from error

"""A node that speaks the real JSON-lines protocol over a socket pair and verifies bundles as the agent does.

It keeps peers in memory instead of a kernel. Nothing of control is patched: the reconciler gets a connection whose
channels end here instead of at sshd.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core import canonical, signing
from appliance.core.bundle import (
    Accepted,
    Bundle,
    Grant,
    node_epoch,
    verify_bundle,
    verify_grant,
    verify_revocation,
)
from appliance.core.epoch import verify_statement
from appliance.core.errors import ApplianceError, RefusedError, UnavailableError
from appliance.core.heartbeat import Heartbeat, extend_past, sign_heartbeat
from appliance.core.names import ZERO_DIGEST, encode_base64, random_id
from appliance.core.receipt import (
    Confinement,
    End,
    Erase,
    Receipt,
    RuntimeFacts,
    SignedReceipt,
    sign_receipt,
    timestamp,
)
from netops.mailbox.roster import render_roster
from netops.mailbox.spool import clear_letters, read_letters

BOOT = "b" * 32
GIB = 2**30


def report(name: str = "node-a", /, **changes: Any) -> dict[str, Any]:
    """A node's health, all well but for the changes."""
    return {
        "node": name,
        "boot": BOOT,
        "appliance": "0.1.0",
        "accepted": None,
        "uptime_s": 60,
        "cores": 4,
        "load": [1000, 500, 250],
        "memory": {"total_bytes": 8 * GIB, "available_bytes": 6 * GIB},
        "swap": False,
        "disks": [
            {"name": "root", "total_bytes": 100 * GIB, "free_bytes": 50 * GIB},
            {"name": "receipts", "total_bytes": 10 * GIB, "free_bytes": 4 * GIB},
        ],
        "temperature_c": 41,
        "gpus": [
            {
                "index": 0,
                "memory_total_bytes": 80 * GIB,
                "memory_used_bytes": 20 * GIB,
                "utilisation_percent": 35,
                "temperature_c": 55,
            }
        ],
        "cells": [{"client": "acme", "pid": 4242, "rss_bytes": GIB, "confined": True}],
        "seats": {"total": 2, "taken": 1},
        "queue": 0,
        "notary": {"up": True, "records": 7, "sessions": 3, "waiting": 1, "bytes": 900, "max_bytes": 10_000},
        "tokens_per_s": 20,
        "tunnel": {"kind": "kernel", "up": True, "connected": 1, "stale": 1, "never_seen": 1},
        "nginx": True,
        "models": [{"sha256": "1" * 64, "state": "verified"}],
        "clock": timestamp(datetime.now(UTC)),
        **changes,
    }


@dataclass
class SimulatedNode:
    """One node. `down` makes it unreachable; `apply_s` makes `apply` slow."""

    name: str
    bundle_key: str
    down: bool = False
    apply_s: float = 0.0
    accepted: Accepted | None = None
    bundle: Bundle | None = None
    peers: dict[str, str] = field(default_factory=dict)
    granted: list[Grant] = field(default_factory=list)
    models: dict[str, bytes] = field(default_factory=dict)
    journal: list[Any] = field(default_factory=list)
    tiles: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    places: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, float]] = field(default_factory=list)
    mailbox: Path | None = None  # folder that holds guests.json and the spool
    health: dict[str, Any] = field(default_factory=dict)
    connected: list[dict[str, Any]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    fails_at_apply: ApplianceError | None = None
    restore_key: str | None = None
    raised: int = 0

    def __post_init__(self) -> None:
        self.receipt_key = Ed25519PrivateKey.generate()
        self.wireguard_key = X25519PrivateKey.generate()
        self.tls_key = ec.generate_private_key(ec.SECP256R1())
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []

    # -- the connection that control gets

    def open_channel(self) -> SocketChannel:
        if self.down:
            raise UnavailableError("the node does not answer on its SSH port")
        ours, theirs = socket.socketpair()
        self._open.append(ours)
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return SocketChannel(ours)

    def close(self) -> None:
        """Break every channel, as closing an SSH connection does; who waits on one is told."""
        for ours in self._open:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    # -- the agent's side

    def ops(self) -> list[str]:
        return [op for op, _ in self.seen]

    def issue_receipt(self, client: str, **changes: Any) -> SignedReceipt:
        """Append a receipt to the journal, chained like the notary does."""
        mine = (entry for entry in reversed(self.journal) if entry["receipt"]["client"] == client)
        before = next(mine, None)
        last = Receipt.parse(before["receipt"]) if before else None
        values: dict[str, Any] = {
            "id": random_id(),
            "session": random_id(),
            "client": client,
            "seq": last.seq + 1 if last else 1,
            "prev": last.digest if last else ZERO_DIGEST,
            "node": self.name,
            "boot": BOOT,
            "opened_at": "2026-01-01T00:00:00.000Z",
            "ended_at": "2026-01-01T00:00:01.000Z",
            "end": End.ONE_SHOT,
            "requests": 1,
            "prompt_tokens": 2,
            "completion_tokens": 3,
            "retrieved_chunks": 0,
            "corpora": (),
            "models": ("1" * 64,),
            "runtime": RuntimeFacts(appliance="0.1.0", llama_cpp="2" * 64, generation=1),
            "confinement": Confinement(
                landlock_abi=7,
                seccomp=True,
                network="namespace",
                core_dumps=False,
                dumpable=False,
                swap=False,
            ),
            "erase": Erase(bytes=1, verified=True),
        }
        signed = sign_receipt(Receipt(**(values | changes)), self.receipt_key)
        self.journal.append(signed.model_dump(mode="json"))
        return signed

    def _serve(self, stream: socket.socket) -> None:
        with stream, stream.makefile("rb") as file:
            while line := file.readline():
                request = json.loads(line)
                op = request.pop("op")
                number = request.pop("id")
                if self.down:
                    return
                self.seen.append((op, time.monotonic()))
                try:
                    if op == "model":
                        request["content"] = file.read(request.pop("size"))
                    reply = {"id": number, "ok": True, "result": getattr(self, f"op_{op}")(**request)}
                except ApplianceError as error:
                    problem = {"code": error.code, "message": str(error)}
                    if isinstance(error, RefusedError):
                        problem["field"] = error.field or ""
                    reply = {"id": number, "ok": False, "error": problem}
                try:
                    stream.sendall(json.dumps(reply).encode() + b"\n")
                except OSError:
                    return

    def op_identity(self) -> dict[str, Any]:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ignored")])
        request = x509.CertificateSigningRequestBuilder(name).sign(self.tls_key, hashes.SHA256())
        return {
            "node": self.name,
            "wireguard_public_key": encode_base64(self.wireguard_key.public_key().public_bytes_raw()),
            "receipt_public_key": signing.public_text(self.receipt_key),
            "tls_request": request.public_bytes(serialization.Encoding.PEM).decode(),
            "boot": BOOT,
            "appliance": "0.1.0",
        }

    def op_state(self) -> dict[str, Any]:
        accepted = self.accepted.model_dump() if self.accepted else None
        epoch = node_epoch(self.accepted, self.raised)
        return {"accepted": accepted, "boot": BOOT, "epoch": epoch, "models": sorted(self.models)}

    def op_raise(self, statement: str, signature: str) -> dict[str, Any]:
        with self._lock:
            raised = verify_statement(
                statement.encode(),
                signature,
                restore_key=self.restore_key,
                bundle_key=self.bundle_key,
                epoch=node_epoch(self.accepted, self.raised),
            )
            self.raised = raised.epoch
        return {"epoch": self.raised}

    def op_model(self, sha256: str, content: bytes) -> dict[str, Any]:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RefusedError("the file's bytes are not the pinned ones", field="sha256")
        self.models[sha256] = content
        return {"stored": True}

    def op_apply(self, bundle: str, signature: str) -> dict[str, Any]:
        if self.fails_at_apply is not None:
            raise self.fails_at_apply
        with self._lock:
            accepted = verify_bundle(
                bundle.encode(),
                signature,
                public_key=self.bundle_key,
                node=self.name,
                accepted=self.accepted,
                raised=self.raised,
            )
            time.sleep(self.apply_s)
            self.bundle = accepted
            self.accepted = Accepted(
                epoch=accepted.epoch, generation=accepted.generation, digest=accepted.digest
            )
            self.granted = [grant for grant in self.granted if grant.generation >= accepted.generation]
            clients = [*accepted.clients, *(client for grant in self.granted for client in grant.clients)]
            self.peers = {d.public_key: d.preshared_key for client in clients for d in client.devices}
            self.peers |= {guest.public_key: guest.preshared_key for guest in accepted.guests}
            if self.mailbox is not None:
                (self.mailbox / "guests.json").write_bytes(render_roster(accepted.guests))
                kept = {guest.secret_sha256 for guest in accepted.guests}
                clear_letters(self.mailbox / "spool", kept)
        return {"accepted": self.accepted.model_dump(), "actions": [], "milliseconds": 1}

    def op_revoke(self, revocation: str, signature: str) -> dict[str, Any]:
        asked = verify_revocation(
            revocation.encode(),
            signature,
            public_key=self.bundle_key,
            node=self.name,
            accepted=self.accepted,
        )
        removed = [key for key in asked.public_keys if self.peers.pop(key, None) is not None]
        return {"removed": removed, "ended": list(asked.clients), "milliseconds": 1}

    def op_grant(self, grant: str, signature: str) -> dict[str, Any]:
        asked = verify_grant(
            grant.encode(), signature, public_key=self.bundle_key, node=self.name, accepted=self.accepted
        )
        self.granted.append(asked)  # before the peers: an `apply` that goes on meanwhile takes it along
        added = {d.public_key: d.preshared_key for client in asked.clients for d in client.devices}
        self.peers |= added
        return {"added": sorted(added), "milliseconds": 1}

    def op_observe(self) -> dict[str, Any]:
        return {"peers": [{"public_key": key, "preshared": True} for key in self.peers]}

    def op_health(self) -> dict[str, Any]:
        return report(self.name, **self.health)

    def op_peers(self) -> dict[str, Any]:
        return {"connected": self.connected, "stale": self.stale}

    def op_plan(self, bundle: str, signature: str) -> dict[str, Any]:
        wanted = verify_bundle(
            bundle.encode(), signature, public_key=self.bundle_key, node=self.name, accepted=self.accepted
        )
        keys = {device.public_key for client in wanted.clients for device in client.devices}
        return {"actions": [f"add peer {key}" for key in sorted(keys - self.peers.keys())]}

    def op_receipts(self, after: int, limit: int) -> dict[str, Any]:
        if after > len(self.journal):
            return {"entries": [], "next": len(self.journal)}
        piece = self.journal[after : after + limit]
        entries = [
            {"position": after + n + 1, "signed": canonical.encode(signed).decode()}
            for n, signed in enumerate(piece)
        ]
        return {"entries": entries, "next": after + len(piece)}

    def op_letters(self) -> dict[str, Any]:
        letters = read_letters(self.mailbox / "spool") if self.mailbox is not None else []
        return {"letters": [letter.model_dump(mode="json") for letter in letters]}

    def op_heartbeat(self, nonce: str) -> dict[str, Any]:
        journal = list(self.journal)  # it may grow meanwhile
        digests = (
            hashlib.sha256(canonical.encode(entry["receipt"])).hexdigest()
            if "receipt" in entry
            else ZERO_DIGEST
            for entry in journal
        )
        heartbeat = Heartbeat(
            nonce=nonce,
            node=self.name,
            boot=BOOT,
            at="2026-01-01T00:00:00.000Z",
            receipts=len(journal),
            open=0,
            past=reduce(extend_past, digests, ZERO_DIGEST),
        )
        return {"signed": sign_heartbeat(heartbeat, self.receipt_key).model_dump(mode="json")}

    def op_admitted(self, position: int) -> dict[str, Any]:
        return {"waiting": len(self.journal) - position}

    def op_publish(self, files: dict[str, str], checkpoint: str) -> dict[str, Any]:
        self.tiles |= files
        if checkpoint:
            self.checkpoint = checkpoint
        return {"size": self.log_size}

    def op_published(self, path: str) -> dict[str, Any]:
        if path == "checkpoint":
            return {"data": encode_base64(self.checkpoint.encode()) if self.checkpoint else None}
        return {"data": self.tiles.get(path)}

    @property
    def log_size(self) -> int:
        return int(self.checkpoint.split("\n")[1]) if self.checkpoint else 0

    def op_places(self, places: list[dict[str, Any]]) -> dict[str, Any]:
        self.places |= {entry["receipt"]: entry["place"] for entry in places}
        return {"placed": max(self.places.values(), default=-1) + 1}


class SocketChannel:
    """Control's end of the socket pair."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._file = stream.makefile("rb")

    def send(self, data: bytes, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise UnavailableError("the connection to the node broke") from error

    def receive_line(self, limit: int, timeout_s: float) -> bytes:
        self._socket.settimeout(timeout_s)
        try:
            line = self._file.readline(limit + 1)
        except OSError as error:
            raise UnavailableError("the connection to the node broke") from error
        if not line.endswith(b"\n"):
            raise UnavailableError("the node closed the connection")
        return line[:-1]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

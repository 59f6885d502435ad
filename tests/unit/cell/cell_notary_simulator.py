"""A notary for one client over one connection: the line protocol of docs/spec/node-protocols.md section 3."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import RefusedError
from appliance.core.names import ZERO_DIGEST, random_id
from appliance.core.receipt import Draft, Opening, Receipt, SignedReceipt, sign_receipt, timestamp
from appliance.transparency.errors import NotLoggedError
from inference.cell.notary import QuotaError


class SimulatedNotary:
    """The knobs are public.

    Attributes:
        near: The cell's end of the connection.
        opened, signed: What it has recorded, by receipt id.
        events: (monotonic ns, op) just before each reply is sent.
        may_open, may_close: Cleared to hold replies back.
        refuse: Ops that are refused.
        logged: The log holds what was signed.
        lines: Every line that the cell sent.
        grants: What sessions are granted, in this order; after the last one the budget is used up. None: there is no budget.
        used: What `recent` says.
    """

    def __init__(self) -> None:
        self.near, self._far = socket.socketpair()
        self.opened: dict[str, Opening] = {}
        self.signed: dict[str, SignedReceipt] = {}
        self.drafts: dict[str, Draft] = {}
        self.events: list[tuple[int, str]] = []
        self.may_open, self.may_close = threading.Event(), threading.Event()
        self.may_open.set()
        self.may_close.set()
        self.refuse: set[str] = set()
        self.logged = False
        self.lines: list[bytes] = []
        self.grants: list[dict[str, int]] | None = None
        self.used = {"requests": 0, "tokens": 0}
        self._key = Ed25519PrivateKey.generate()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._far.shutdown(socket.SHUT_RDWR)

    def say(self, reply: dict[str, Any]) -> None:
        """Say something that nobody asked for."""
        self.say_bytes(json.dumps(reply).encode() + b"\n")

    def say_bytes(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            self._far.sendall(line)

    def close(self) -> None:
        self.may_open.set()
        self.may_close.set()
        self.hang_up()
        self._thread.join(5)
        self._far.close()
        self.near.close()

    def ends(self) -> list[str]:
        return [draft.end.value for draft in self.drafts.values()]

    def await_ends(self, count: int, within_s: float = 3.0) -> list[str]:
        until = time.monotonic() + within_s
        while len(self.drafts) < count and time.monotonic() < until:
            time.sleep(0.01)
        return self.ends()

    def _serve(self) -> None:
        with self._far.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                self.lines.append(line)
                request = json.loads(line)
                reply = self._answer(request)
                self.events.append((time.monotonic_ns(), request["op"]))
                self._far.sendall(json.dumps({"id": request["id"], **reply}).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request["op"]
        if op in self.refuse:
            return {"ok": False, "error": {"code": "unavailable", "message": "journal full", "field": None}}
        try:
            return {"ok": True, "result": getattr(self, "_" + op)(request)}
        except KeyError:
            return {"ok": False, "error": {"code": "not_found", "message": "unknown", "field": "receipt"}}
        except (NotLoggedError, QuotaError) as error:
            return {"ok": False, "error": {"code": error.code, "message": error.message}}
        except RefusedError as error:
            return {"ok": False, "error": {"code": error.code, "message": str(error), "field": error.field}}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        self.may_open.wait(10)
        receipt = random_id()
        if self.grants is None:
            self.opened[receipt] = Opening.parse(request["opening"])
            return {"receipt": receipt}
        if not self.grants:
            raise QuotaError("used up")
        self.opened[receipt] = Opening.parse(request["opening"])
        return {"receipt": receipt, "grant": self.grants.pop(0)}

    def _recent(self, _request: dict[str, Any]) -> dict[str, Any]:
        return self.used

    def _close(self, request: dict[str, Any]) -> dict[str, Any]:
        self.may_close.wait(10)
        receipt_id = request["receipt"]
        opening, draft = self.opened[receipt_id], Draft.parse(request["draft"])
        assert receipt_id not in self.drafts, "closed twice"
        now = timestamp(datetime.now(UTC))
        receipt = Receipt(
            id=receipt_id,
            client="c" * 64,
            seq=len(self.signed) + 1,
            prev=ZERO_DIGEST,
            node="node-a",
            boot="b" * 32,
            opened_at=now,
            ended_at=now,
            **{name: getattr(opening, name) for name in Opening.model_fields},
            **{name: getattr(draft, name) for name in Draft.model_fields},
        )
        self.signed[receipt_id] = sign_receipt(receipt, self._key)
        self.drafts[receipt_id] = draft
        return {"signed": self.signed[receipt_id].model_dump(mode="json")}

    def _prove(self, request: dict[str, Any]) -> dict[str, Any]:
        signed = self.signed[request["receipt"]]
        if not self.logged:
            raise NotLoggedError("the log does not hold this receipt yet")
        return {"proof": f"proof of {signed.receipt.id}\n"}

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"signed": self.signed[request["receipt"]].model_dump(mode="json")}

"""The forced command of the test's sshd: answers JSON lines the way the agent does, from canned behaviour."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any


def answer(op: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the whole reply but its id."""
    if op == "model":
        content = sys.stdin.buffer.read(request["size"])
        same = hashlib.sha256(content).hexdigest() == request["sha256"]
        if not same:
            return {
                "ok": False,
                "error": {"code": "pin_mismatch", "message": "not the bytes", "field": "sha256"},
            }
        return {"ok": True, "result": {"stored": True}}
    if op == "apply":
        time.sleep(float(request["signature"] or 0))
        accepted = {"epoch": 1, "generation": 1, "digest": "0" * 64}
        return {"ok": True, "result": {"accepted": accepted, "actions": [], "milliseconds": 1}}
    if op == "revoke":
        return {"ok": True, "result": {"removed": [], "ended": [], "milliseconds": 1}}
    if op == "health":
        return {"ok": True, "result": {"clock": "x" * 3_000_000}}
    if op == "observe":
        sys.exit(0)
    error = {"code": "bundle_refused", "message": "clients.0.name: bad", "field": "clients.0.name"}
    return {"ok": False, "error": error}


for line in sys.stdin.buffer:
    value = json.loads(line)
    sys.stdout.write(json.dumps({"id": value["id"], **answer(value["op"], value)}) + "\n")
    sys.stdout.flush()

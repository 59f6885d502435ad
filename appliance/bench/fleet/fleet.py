"""Ten thousand devices of two hundred clients: what a whole bundle costs, and how fast one device more or less is in force.

Nothing is simulated: control's web process and reconciler, SSH, the agent, wireguard-go and nftables, in the lab. A device is in
force when its peer is, which comes last. Times are of one clock, from before the request is sent.
"""

from __future__ import annotations

import base64
import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from appliance.bench.report import Check, Report
from appliance.core.errors import HostError
from appliance.core.node import NodePaths
from appliance.lab import lab as labs
from appliance.lab.lab import Lab
from appliance.lab.provision import CONTROL_ENVIRONMENT, CONTROL_STATE, WEB_USER, control, wait_until
from appliance.lab.topology import ACME, CONSOLE_PORT, MGMT, MGMT_ADDRESS, NODE, READING_MODEL, TUNNEL

CLIENTS, DEVICES_EACH = 200, 50
ROUNDS, REPEATED = 15, 5
CHANGE_S, RENDER_S, APPLY_S, REPEAT_S = 1.0, 1.0, 2.0, 1.0
FILLED_TIMEOUT_S, SEEN_TIMEOUT_S, ABSENT_S = 120.0, 20.0, 2.0

# Run in the node: prints when the peer came (1) or went (0), or nothing.
_WATCH = """
import subprocess, sys, time
interface, key, wanted, patience = sys.argv[1], sys.argv[2], sys.argv[3] == "1", float(sys.argv[4])
print("watching", flush=True)
deadline = time.monotonic() + patience
while time.monotonic() < deadline:
    now = time.monotonic()
    peers = subprocess.run(["wg", "show", interface, "peers"], capture_output=True, text=True, check=True).stdout
    if (key in peers) == wanted:
        print(time.monotonic())
        break
"""
# Run in the management machine: prints when the request was sent, and its answer. The token comes on standard input.
_REQUEST = """
import http.client, json, ssl, sys, time
host, port, ca, method, path, body = sys.argv[1:]
trusted = ssl.create_default_context(cafile=ca)
connection = http.client.HTTPSConnection(host, int(port), context=trusted, timeout=60)
headers = {"Authorization": "Bearer " + sys.stdin.read().strip(), "Content-Type": "application/json"}
connection.connect()
sent = time.monotonic()
connection.request(method, path, body or None, headers)
reply = connection.getresponse()
text = reply.read()
assert reply.status < 300, reply.status
print(json.dumps([sent, json.loads(text)]))
"""


def measure_fleet(name: str, report: Callable[[str], None]) -> Report:
    """Bring a lab up, fill it, measure, take it down."""
    lab = labs.up(name, report)
    try:
        report(f"adding {CLIENTS * DEVICES_EACH:,} devices of {CLIENTS} clients")
        filled = _fill(lab)
        report("repeating the bundle")
        repeated = [_repeat(lab) for _ in range(REPEATED)]
        token = _token(lab)
        added, revoked = [], []
        for number in range(ROUNDS):
            report(f"adding and revoking a device, {number + 1} of {ROUNDS}")
            added.append(_add(lab, token, f"bench-{number}"))
            revoked.append(_revoke(lab, token, f"bench-{number}"))
        absent = _watch(lab, _new_key(), present=True, patience_s=ABSENT_S) is None
    finally:
        report("taking everything down")
        labs.down(name)
    checks = (
        Check("whole bundle rendered and signed", filled["render_ms"] / 1000, RENDER_S, "s", 1),
        Check("whole bundle applied", filled["ms"] / 1000, APPLY_S, "s", 1),
        Check("the same bundle again, median", statistics.median(repeated), REPEAT_S, "s", REPEATED),
        Check("request to device in force, median", statistics.median(added), CHANGE_S, "s", ROUNDS),
        Check("request to device in force, worst", max(added), None, "s", ROUNDS),
        Check("request to device cut off, median", statistics.median(revoked), CHANGE_S, "s", ROUNDS),
        Check("request to device cut off, worst", max(revoked), None, "s", ROUNDS),
    )
    return Report(checks, "a key that nobody added is never seen", absent)


def _fill(lab: Lab) -> dict[str, Any]:
    """Fill control's database; return what the reconciler logged when the node had applied it."""
    fill = "from appliance.bench.fleet.fill import main; main()"
    arguments = (str(CLIENTS), str(DEVICES_EACH), READING_MODEL)
    lab[MGMT].run(sys.executable, "-I", "-c", fill, *arguments, user=WEB_USER, env=CONTROL_ENVIRONMENT)
    wanted = CLIENTS * DEVICES_EACH
    wait_until(lambda: _applied(lab, wanted) is not None, "the bundle", lab[NODE], FILLED_TIMEOUT_S)
    applied = _applied(lab, wanted)
    if applied is None:
        raise HostError("the reconciler's log lost a line")
    return applied


def _applied(lab: Lab, actions: int) -> dict[str, Any] | None:
    log = (lab[MGMT].folder / "reconciler.log").read_text("utf-8", "replace").splitlines()
    events = (json.loads(line) for line in log if line.startswith("{"))
    return next((e for e in events if e.get("code") == "applied" and e["actions"] >= actions), None)


def _repeat(lab: Lab) -> float:
    """Return the seconds that a pass over the bundle in force takes on the node."""
    from netops.lines import call

    paths = NodePaths(lab[NODE].root)
    stored = json.loads((paths.state / "bundle.json").read_text("utf-8"))
    return float(call(paths.agent_socket, "apply", timeout_s=60.0, **stored)["milliseconds"]) / 1000


def _token(lab: Lab) -> str:
    control(lab[MGMT], "operator", "add", "bench", "--no-password")
    return str(control(lab[MGMT], "token", "create", "bench", "fleet")["token"])


def _add(lab: Lab, token: str, device: str) -> float:
    key = _new_key()
    body = json.dumps({"client": ACME.name, "name": device, "public_key": key})
    return _timed(lab, token, key, ("POST", "/api/v1/devices", body), present=True)


def _revoke(lab: Lab, token: str, device: str) -> float:
    _, page = _request(lab, token, "GET", f"/api/v1/devices?client={ACME.name}", "")
    found = next(row for row in page["results"] if row["name"] == device and row["state"] == "active")
    request = ("POST", f"/api/v1/devices/{found['id']}/revoke", "")
    return _timed(lab, token, found["public_key"], request, present=False)


def _timed(lab: Lab, token: str, key: str, request: tuple[str, str, str], *, present: bool) -> float:
    """Return the seconds from sending a request until the node's kernel has the peer, or has it no more."""
    _rest(lab)
    with ThreadPoolExecutor(1) as watcher:
        seen = watcher.submit(_watch, lab, key, present=present, patience_s=SEEN_TIMEOUT_S)
        time.sleep(0.5)  # it is watching by then
        sent, _ = _request(lab, token, *request)
        at = seen.result()
    if at is None:
        raise HostError("the change never came into force", hint=f"look in {lab[NODE].folder}")
    return at - sent


def _rest(lab: Lab) -> None:
    """Wait until control and node have nothing to do: what is measured is one change, not a queue."""
    log = lab[MGMT].folder / "reconciler.log"
    size, quiet_since = -1, time.monotonic()
    while time.monotonic() - quiet_since < 2.5:
        now = log.stat().st_size
        if now != size:
            size, quiet_since = now, time.monotonic()
        time.sleep(0.1)


def _watch(lab: Lab, key: str, *, present: bool, patience_s: float) -> float | None:
    arguments = (TUNNEL, key, "1" if present else "0", str(patience_s))
    printed = lab[NODE].run(sys.executable, "-I", "-c", _WATCH, *arguments).stdout.split()
    return float(printed[1]) if len(printed) > 1 else None


def _request(lab: Lab, token: str, method: str, path: str, body: str) -> tuple[float, Any]:
    arguments = (MGMT_ADDRESS, str(CONSOLE_PORT), f"{CONTROL_STATE}/public/ca.pem", method, path, body)
    sent, answer = json.loads(
        lab[MGMT].run(sys.executable, "-I", "-c", _REQUEST, *arguments, stdin=token).stdout
    )
    return float(sent), answer


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode("ascii")

"""What the way in costs: WireGuard, TLS and NGINX in front of a cell, against the cell's own socket, in one run.

Both sides send the same requests over one kept connection, in alternation, so that noise of the machine meets both.
Needs the lab.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable

from appliance.bench.report import Check, Report
from appliance.lab import lab as labs
from appliance.lab.lab import CLIENT_FOLDER, Lab
from appliance.lab.machine import Machine
from appliance.lab.provision import CELL_IDLE_S, appliance, wait_until
from appliance.lab.topology import ACME, NODE, READING_MODEL, TUNNEL, TUNNEL_ADDRESS4

ROUNDS, REQUESTS = 5, 100
COLD_STARTS = 5
ADDED_MS, COLD_START_MS = 3.0, 1500.0

# Run in a machine; prints the milliseconds of each request. The token comes on standard input.
_CLIENT = """
import http.client, json, socket, ssl, sys, time
kind, target, ca, address, count, body = sys.argv[1:]
token = sys.stdin.read().strip()
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
if kind == "tunnel":
    connection = http.client.HTTPSConnection(target, 443, context=ssl.create_default_context(cafile=ca), timeout=60)
else:
    connection = http.client.HTTPConnection("cell", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(target)
    headers["X-Peer-Address"] = address
times = []
for _ in range(int(count)):
    started = time.perf_counter()
    connection.request("POST" if body else "GET", "/v1/chat/completions" if body else "/v1/models", body or None, headers)
    reply = connection.getresponse()
    reply.read()
    times.append((time.perf_counter() - started) * 1000)
    assert reply.status == 200, reply.status
print(json.dumps(times))
"""
_ONE_TOKEN = json.dumps(
    {"model": READING_MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True}
)


def measure_path(name: str, report: Callable[[str], None]) -> Report:
    """Bring a lab up, measure, take it down."""
    lab = labs.up(name, report)
    try:
        report("measuring cold starts")
        cold = [_cold_start(lab) for _ in range(COLD_STARTS)]
        report("measuring requests")
        before = _carried(lab[ACME])
        tunnel, direct = _alternate(lab)
        carried = _carried(lab[ACME]) - before
    finally:
        report("taking everything down")
        labs.down(name)
    added = statistics.median(tunnel) - statistics.median(direct)
    n = ROUNDS * REQUESTS
    checks = (
        Check("added by tunnel, TLS and NGINX, median", added, ADDED_MS, "ms", n),
        Check("request through the tunnel, median", statistics.median(tunnel), None, "ms", n),
        Check("request through the tunnel, p99", statistics.quantiles(tunnel, n=100)[98], None, "ms", n),
        Check("request on the cell's own socket, median", statistics.median(direct), None, "ms", n),
        Check(
            "cold start to the whole answer of one token, median",
            statistics.median(cold),
            COLD_START_MS,
            "ms",
            COLD_STARTS,
        ),
    )
    # Every request and its answer take at least a packet each way.
    return Report(checks, "the tunnel carried the requests", carried >= n * 500)


def _cold_start(lab: Lab) -> float:
    """Wait until the client's cell is gone, then time one answer of one token, connection and handshake included."""

    def gone() -> bool:
        health = json.loads(
            lab[NODE].run(*appliance("node", "health", "--json")).stdout.strip().splitlines()[-1]
        )
        return not health.get("result", health)["cells"]

    wait_until(gone, "the cell's exit", lab[NODE], CELL_IDLE_S + 30)
    return _times(lab, "tunnel", 1, _ONE_TOKEN)[0]


def _alternate(lab: Lab) -> tuple[list[float], list[float]]:
    tunnel: list[float] = []
    direct: list[float] = []
    _times(lab, "tunnel", 10)  # the cell is warm now
    for _ in range(ROUNDS):
        tunnel += _times(lab, "tunnel", REQUESTS)
        direct += _times(lab, "socket", REQUESTS)
    return tunnel, direct


def _times(lab: Lab, kind: str, count: int, body: str = "") -> list[float]:
    folder = f"{CLIENT_FOLDER}/laptop"
    token = (lab[ACME].root / folder.lstrip("/") / "token").read_text("utf-8")
    machine, target = (
        (lab[ACME], TUNNEL_ADDRESS4)
        if kind == "tunnel"
        else (lab[NODE], f"/run/appliance/clients/{ACME.name}/http.sock")
    )
    command = (
        sys.executable,
        "-I",
        "-c",
        _CLIENT,
        kind,
        target,
        f"{folder}/ca.pem",
        _address(lab[ACME]),
        str(count),
        body,
    )
    return [float(ms) for ms in json.loads(machine.run(*command, stdin=token).stdout)]


def _address(machine: Machine) -> str:
    """Return the machine's tunnel address (IPv4)."""
    shown = json.loads(machine.run("ip", "-json", "-4", "address", "show", "dev", TUNNEL).stdout)
    return str(shown[0]["addr_info"][0]["local"])


def _carried(machine: Machine) -> int:
    """Return how many bytes the machine's tunnel has sent and received so far."""
    shown = machine.run("wg", "show", TUNNEL, "transfer").stdout.split()
    return int(shown[1]) + int(shown[2])

"""kill -9 at any moment: every receipt that a cell was given is still there, once, and the chain has no gap."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from notary_world import CLIENTS, DRAFT, OPENING, Speaker, counter

from appliance.core.node import NodePaths
from appliance.core.receipt import SignedReceipt

KILLS = int(os.environ.get("KILLS", "50")) // 2  # the other half are control's
SETTINGS = {
    "node": "node-1",
    "outer_interface": "eth0",
    "management_interface": "eth1",
    "tunnel_interface": "wg0",
    "control_addresses": ["192.0.2.1"],
    "bundle_key": "AQ" + "A" * 41 + "=",
    "services": "launcher",
}


def start(paths: NodePaths) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "appliance", "notary", "--root", str(paths.root)])
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(OSError):
            Speaker(paths.notary_control).close()
            return process
        time.sleep(0.01)
    raise AssertionError("the notary did not start")


def sessions(paths: NodePaths, client: str, given: list[SignedReceipt]) -> None:
    try:
        cell = Speaker(counter(paths, client))
        try:
            while True:
                receipt = cell.ask("open", opening=OPENING)["receipt"]
                given.append(SignedReceipt.parse(cell.ask("close", receipt=receipt, draft=DRAFT)["signed"]))
        finally:
            cell.close()
    except OSError:
        return


def test_no_acknowledged_receipt_is_lost_over_many_kills(paths: NodePaths) -> None:
    paths.etc.mkdir(parents=True)
    (paths.etc / "node.json").write_text(json.dumps(SETTINGS))
    given: list[SignedReceipt] = []
    chance = random.Random(1)
    for _ in range(KILLS):
        process = start(paths)
        agent = Speaker(paths.notary_control)
        agent.ask("clients", clients=CLIENTS)
        threads = [threading.Thread(target=sessions, args=(paths, name, given)) for name in "ab"]
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        agent.close()
        for thread in threads:
            thread.join()
    process = start(paths)
    agent = Speaker(paths.notary_control)
    entries: list[dict[str, Any]] = []
    while page := agent.ask("export", after=len(entries), limit=10_000)["entries"]:
        entries += page
    agent.close()
    process.terminate()
    assert process.wait(10) == 0
    kept = [SignedReceipt.parse_canonical(entry["signed"].encode()) for entry in entries]
    by_id = {signed.receipt.id: signed for signed in kept}
    assert len(by_id) == len(kept)
    assert len(given) > 5 * KILLS
    assert all(by_id[signed.receipt.id] == signed for signed in given)
    for client in "ab":
        seqs = [signed.receipt.seq for signed in kept if signed.receipt.client == client * 64]
        assert seqs == list(range(1, len(seqs) + 1))

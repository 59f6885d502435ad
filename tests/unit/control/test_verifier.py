"""The second process that verifies receipts says what this one would say, and is no loss when it is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulated_node import SimulatedNode

from appliance.core import canonical
from appliance.core.receipt import CertifiedKeys, NodeKey, certify, make_keyring
from appliance.core.signing import public_text
from control.audit.arrivals import Arrival, Damaged, look_at_all
from control.reconciler import verifier
from control.reconciler.verifier import look_aside

SPAWNS = """
import multiprocessing, sys, time
from control.reconciler.verifier import look_aside

if __name__ == "__main__":
    look_aside([], "node-a", None)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def keys() -> tuple[SimulatedNode, CertifiedKeys]:
    log_key = Ed25519PrivateKey.generate()
    node = SimulatedNode("node-a", public_text(log_key))
    return node, certify(
        make_keyring((NodeKey(node="node-a", public_key=public_text(node.receipt_key)),), log_key)
    )


def await_true(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def own_process() -> multiprocessing.process.BaseProcess | None:
    return next((child for child in multiprocessing.active_children() if child.name == "verifier"), None)


def await_ready(certified: CertifiedKeys) -> None:
    def is_ready() -> bool:
        look_aside([], "node-a", certified)
        process = verifier._process
        return process is not None and process.look_at_all([], "node-a", certified) == []

    await_true(is_ready)


def texts(node: SimulatedNode) -> list[Any]:
    """Return what an honest node hands over, and what a dishonest one might."""
    honest = canonical.encode(node.issue_receipt("a" * 64).model_dump(mode="json")).decode()
    other = canonical.encode(node.issue_receipt("a" * 64, node="node-b").model_dump(mode="json")).decode()
    forged = honest.replace('"requests":1', '"requests":2')
    return [honest, other, forged, f" {honest}", '{"receipt":{}}', "{", "\ud800", 7, None, {"receipt": {}}]


def test_it_says_what_this_process_says(keys: tuple[SimulatedNode, CertifiedKeys]) -> None:
    node, certified = keys
    handed = texts(node)
    here = look_at_all(handed, "node-a", certified)
    await_ready(certified)
    assert verifier._process is not None
    assert verifier._process.look_at_all(handed, "node-a", certified) == here
    assert [seen.verified for seen in here if isinstance(seen, Arrival)] == [True, False, False]
    assert [type(seen) for seen in here[3:]] == [Damaged] * 7


def test_one_that_was_killed_is_no_loss_and_is_followed_by_another(
    keys: tuple[SimulatedNode, CertifiedKeys],
) -> None:
    node, certified = keys
    await_ready(certified)
    handed = texts(node)
    killed = own_process()
    assert killed is not None
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    assert look_aside(handed, "node-a", certified) == look_at_all(handed, "node-a", certified)
    await_ready(certified)
    follower = own_process()
    assert follower is not None
    assert follower.pid != killed.pid


def test_it_ends_when_control_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "spawns.py"
    script.write_text(SPAWNS, "utf-8")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as control:
        assert control.stdout is not None
        pid = int(control.stdout.readline())
        control.kill()
    await_true(lambda: not Path(f"/proc/{pid}").exists())

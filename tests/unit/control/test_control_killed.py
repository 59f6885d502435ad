"""kill -9 of control at any moment: every receipt of the node is in the log once, and every head that was signed is of that log."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_node import SimulatedNode

from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.merkle import leaf_hash, root
from appliance.transparency.note import Note
from appliance.transparency.tiles import Tiles
from control.config import VARIABLE
from tests.settings import make_control

KILLS = int(os.environ.get("KILLS", "50")) // 2  # the other half are the notary's
SCRIPT = Path(__file__).with_name("control_under_kill.py")


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="apl-k-") as folder:
        yield Path(folder) / "state"


def serve(node: SimulatedNode, path: Path) -> None:
    """Listen for control."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve_one(stream: socket.socket) -> None:
        with contextlib.suppress(OSError):  # control was killed
            node._serve(stream)

    def accept() -> None:
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=serve_one, args=(stream,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def test_no_receipt_is_lost_or_logged_twice_over_many_kills(state: Path) -> None:
    config = make_control(state)
    environment = {**os.environ, VARIABLE: str(config), "PYTHONPATH": str(SCRIPT.parents[3])}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    node = SimulatedNode("node-a", (state / "public/bundle.pub").read_text().strip())
    path = state.parent / "node.sock"
    serve(node, path)
    run = [sys.executable, str(SCRIPT), str(config), str(path)]
    subprocess.run([*run, "new"], env=environment, check=True, capture_output=True)
    chance = random.Random(1)
    for _ in range(KILLS):
        process = subprocess.Popen([*run, "forever"], env=environment, stderr=subprocess.DEVNULL)
        asked = len(node.seen)
        until = None
        while until is None or time.monotonic() < until:
            node.issue_receipt("ab"[len(node.journal) % 2] * 64)
            time.sleep(0.02)
            if until is None and "receipts" in node.ops()[asked:]:
                until = time.monotonic() + chance.uniform(0, 0.5)
        process.kill()
        process.wait()
    done = subprocess.run([*run, "once"], env=environment, check=True, capture_output=True, text=True)
    held = json.loads(done.stdout.splitlines()[-1])
    issued = [entry["receipt"]["id"] for entry in node.journal]
    assert len(issued) > 10 * KILLS
    logged = [place for _, place in held["events"]]
    assert logged == sorted(logged)
    assert logged, "bundles were accepted"
    assert [number for number, _ in held["events"]] == list(range(1, len(logged) + 1))
    places = [place for place, _, _ in held["receipts"]]
    assert sorted([*places, *logged]) == list(range(len(issued) + len(logged)))
    assert [receipt for _, _, receipt in held["receipts"]] == issued
    assert held["alarms"] == []
    verify_heads(state / "log", held["heads"], held["entries"])


def verify_heads(folder: Path, heads: list[tuple[int, str]], entries: list[str]) -> None:
    """Every head is the root of that many first entries: no two of them are a fork."""
    sizes = [size for size, _ in heads]
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(entries)
    tree = Tiles(folder.parent / "again", 0)
    for size, note in heads:
        checkpoint = Checkpoint.parse(Note.parse(note.encode()).text)
        tree.append(leaf_hash(entry.encode()) for entry in entries[tree.size : size])
        assert (checkpoint.size, checkpoint.root) == (size, root(tree, size))
    assert len(sizes) > KILLS // 2
    assert root(Tiles(folder, sizes[-1]), sizes[-1]) == checkpoint.root

"""Heads are cosigned before they are shown, by whichever witnesses answer; a real `appliance witness serve` is one of them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from control_cast import stored_node
from django.conf import settings
from simulated_node import SimulatedNode

from appliance.core.receipt import NodeKey, make_keyring
from appliance.core.signing import public_text
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import NotLoggedError
from appliance.transparency.merkle import root
from appliance.transparency.note import Note, VerifierKey
from appliance.transparency.tiles import Tiles, read_checkpoint
from control.audit.models import ReceiptRecord
from control.audit.services import admit_receipt
from control.config import WitnessConfig
from control.reconciler.keys import ReconcilerKeys
from control.transparency import keeper as module
from control.transparency.keeper import Keeper
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import newest_checkpoint, prove
from control.transparency.witnesses import Witnesses

pytestmark = pytest.mark.django_db


class World:
    """Control's log, with receipts that come when a test says so."""

    def __init__(self, keys: ReconcilerKeys) -> None:
        self.keys = keys
        self.folder = settings.PATHS.log
        self.node = SimulatedNode("node-a", public_text(keys.bundle))
        self.row = stored_node()
        certified = NodeKey(node="node-a", public_key=public_text(self.node.receipt_key))
        self.keyring = make_keyring((certified,), keys.log)
        self.keeper = Keeper(self.folder, keys.checkpoints, witnessed=True)

    def grow(self, count: int) -> None:
        for _ in range(count):
            admit_receipt(self.row, self.node.issue_receipt("a" * 64), self.keyring)
        self.keeper.keep()

    def witnesses(self, *configured: WitnessConfig) -> Witnesses:
        return Witnesses(self.folder, self.keys.checkpoints.verifier_keys, configured)

    def policy(self, *keys: VerifierKey) -> Policy:
        return Policy(*self.keys.checkpoints.verifier_keys, keys, quorum=len(keys))


@pytest.fixture
def world(db: None, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    settings.PATHS.log_keys.write_text(
        "".join(f"{key.render()}\n" for key in keys.checkpoints.verifier_keys), "utf-8"
    )
    return World(keys)


@contextmanager
def serving(folder: Path, name: str) -> Iterator[WitnessConfig]:
    """A witness in a process of its own."""
    appliance = [sys.executable, "-I", "-m", "appliance", "witness"]
    key = folder / f"{name}.key"
    made = subprocess.run(
        [*appliance, "keygen", name, "--key", key], check=True, capture_output=True, text=True
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listen = ["--listen", f"127.0.0.1:{port}", "--memory", folder / f"{name}.seen"]
    process = subprocess.Popen(
        [*appliance, "serve", name, "--key", key, "--log", settings.PATHS.log_keys, *listen]
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < until, "the witness did not start"
                time.sleep(0.05)
        yield WitnessConfig(url=f"http://127.0.0.1:{port}", key=made.stdout.strip())
    finally:
        process.terminate()
        process.wait(10)


def test_a_head_is_shown_once_its_witnesses_were_asked(world: World, tmp_path: Path) -> None:
    with serving(tmp_path, "alice.example") as alice, serving(tmp_path, "bob.example") as bob:
        keys = tuple(VerifierKey.parse(config.key) for config in (alice, bob))
        witnesses = world.witnesses(alice, bob)
        assert witnesses.settle() is None
        for count in (3, 1, 300):
            world.grow(count)
            record = ReceiptRecord.objects.latest("pk")
            with pytest.raises(NotLoggedError):
                prove(record, world.folder)
            shown = read_checkpoint(world.folder)
            assert not shown or Checkpoint.parse(Note.parse(shown).text).size < len(world.node.journal)
            assert witnesses.settle() == 2
            assert witnesses.settle() is None
            note = newest_checkpoint()
            assert world.policy(*keys).verify(note).size == len(world.node.journal)
            assert note.render() == read_checkpoint(world.folder)
            proof = prove(record, world.folder)
            proof.verify(record.signed().canonical_bytes(), world.policy(*keys))
        # Control restarted and remembers no sizes: the witness says where it stands.
        world.grow(2)
        assert world.witnesses(alice, bob).settle() == 2


def Node_size(world: World) -> int:
    return len(world.node.journal)


def test_a_witness_that_is_away_or_was_shown_another_tree_holds_nothing_up(
    world: World, tmp_path: Path
) -> None:
    with serving(tmp_path, "alice.example") as alice:
        away = WitnessConfig(url="http://127.0.0.1:9", key=alice.key)
        world.grow(3)
        assert world.witnesses(alice).settle() == 1
        world.grow(3)
        assert world.witnesses(away).settle() == 0
        assert newest_checkpoint().text == Note.parse(read_checkpoint(world.folder)).text
        # A fork: the same size, another root, signed with the log's own keys.
        last = CheckpointRecord.objects.latest("size")
        fork = Tiles(tmp_path / "fork", 0)
        fork.append([bytes(32)] * 9)
        fork.publish()
        signed = world.keys.checkpoints.sign(9, root(fork, 9), 1)
        CheckpointRecord.objects.create(size=9, note=signed.render().decode(), settled=False)
        forked = Witnesses(tmp_path / "fork", world.keys.checkpoints.verifier_keys, (alice,))
        assert forked.settle() == 0, "the witness refuses"
        assert Checkpoint.parse(newest_checkpoint().text).size == 9
        assert last.size == 6

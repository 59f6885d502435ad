"""A control that was restored from an old backup: it sends nothing and signs nothing before it knows what happened since."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_cast import new_public_key, node_request, store_pin
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import connection, connections
from simulated_node import SimulatedNode
from test_witnesses import serving

from appliance.cli import main
from appliance.core.errors import RefusedError, UnavailableError
from appliance.core.names import decode_base64, encode_base64
from appliance.core.signing import public_text, write_private_key
from appliance.transparency import merkle
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import ConsistencyError, OtherLogError
from appliance.transparency.memory import Memory
from appliance.transparency.note import Note
from appliance.transparency.tiles import TileReader, load_tile
from control.audit.models import ReceiptRecord
from control.backup.age import make_identity
from control.backup.create import Source, create_backup
from control.backup.logs import FrozenLog, Place
from control.backup.models import EpochRaise, LogRelease, UnclaimedPlace
from control.backup.restore import Target, restore_backup
from control.backup.restored import RestoredError, read_restored
from control.clients import services
from control.clients.enrolment import add_device
from control.clients.models import Device, DeviceState
from control.clients.requests import NewClient, NewDevice
from control.commands.init import find_owners
from control.fleet.models import Node, current_epoch
from control.fleet.requests import NewNode
from control.fleet.services import add_node
from control.keyfiles import publish_log_keys, read_log_signer, replace_log_keys
from control.reconciler import reach
from control.reconciler.keys import ReconcilerKeys, read_keys
from control.reconciler.service import Reconciler
from control.transparency import keeper
from control.transparency.keeper import Keeper
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import prove, prove_continuation
from control.transparency.witnesses import Witness
from provisioning.node import NodeClient

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="it puts SQLite's file back"),
]

IDENTITY = make_identity()
RESTORE = Ed25519PrivateKey.generate()
Run = Callable[..., tuple[int, dict[str, Any]]]


class World:
    """A control with two nodes, that can be thrown back to what it was."""

    def __init__(self, keys: ReconcilerKeys, place: Path) -> None:
        self.place = place
        self.keys = keys
        self.nodes: dict[str, SimulatedNode] = {}
        self.before: dict[str, int | None] = {}  # places in the log before the loss
        self.clients: list[NodeClient] = []
        for name, number in (("node-a", 77), ("node-b", 78)):
            add_node(NewNode.parse(node_request(name, number)))
            node = SimulatedNode(name, public_text(keys.bundle), restore_key=public_text(RESTORE))
            self.nodes[name] = node
        self.node = self.nodes["node-a"]

    def connect(self, node: Node, *_: object) -> SimulatedNode:
        return self.nodes[node.name]

    def reconcile(self) -> dict[str, str]:
        """Start the reconciler anew, and let it make a pass over each node, work at the log, and bring it to the nodes."""
        self.hang_up()
        keys = read_keys(settings.PATHS)
        codes = Reconciler(settings.PATHS, keys, 60.0, connect=self.connect).pass_once()
        again = Reconciler(settings.PATHS, keys, 60.0, connect=self.connect).pass_once()
        assert codes == again
        return codes

    def back_up(self) -> None:
        source = Source(settings.CONFIG, Path(connection.settings_dict["NAME"]))
        create_backup(source, self.place / "file", IDENTITY.recipient, lambda _: None)

    def restore(self) -> None:
        """Lose the machine, and put the backup in its place."""
        state = self.place / "state"
        target = Target(state, find_owners(None, None))
        restore_backup(self.place / "file", IDENTITY, target, lambda _: None)
        connections.close_all()
        live = Path(connection.settings_dict["NAME"])
        for name in (f"{live.name}-wal", f"{live.name}-shm"):
            (live.parent / name).unlink(missing_ok=True)
        shutil.copy(state / "db/control.sqlite3", live)
        shutil.rmtree(settings.PATHS.log, ignore_errors=True)
        shutil.copytree(state / "log", settings.PATHS.log)
        shutil.copy(state / "restored.json", settings.PATHS.restored)
        shutil.rmtree(state)

    def log(self) -> FrozenLog:
        restored = read_restored(settings.PATHS)
        assert restored is not None
        return FrozenLog(settings.PATHS.log, read_log_signer(settings.PATHS), restored)

    def places(self, *names: str) -> list[Place]:
        asked = {name: NodeClient(self.nodes[name]) for name in names or self.nodes}
        self.clients += asked.values()
        return [Place(name, client.published) for name, client in asked.items()]

    def hang_up(self) -> None:
        while self.clients:
            self.clients.pop().close()

    def policy(self) -> Policy:
        return Policy(*read_log_signer(settings.PATHS).verifier_keys)

    def logged(self) -> dict[str, int | None]:
        return dict(ReceiptRecord.objects.values_list("receipt_id", "place"))


@pytest.fixture
def world(keys: ReconcilerKeys, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(keeper, "INTERVAL_S", 0.0)
    place = Path(tempfile.mkdtemp(prefix="re-"))
    paths = settings.PATHS
    kept = [paths.keys, paths.public]
    for folder in kept:
        shutil.copytree(folder, place / folder.name)
    publish_log_keys(paths, read_log_signer(paths))
    store_pin(b"GGUF weights of no model")
    made = World(keys, place)
    yield made
    made.hang_up()
    for folder in kept:
        shutil.rmtree(folder)
        shutil.copytree(place / folder.name, folder)
    paths.restored.unlink(missing_ok=True)
    shutil.rmtree(place)


@pytest.fixture
def grown(world: World) -> World:
    """A backup is made, and then much happens: devices come and go, receipts are logged and published; then it is put back."""
    services.create_client(NewClient(name="acme", node="node-a"))
    world.reconcile()
    for name in ("laptop", "phone"):
        add_device(NewDevice(client="acme", name=name, public_key=new_public_key()))
    for _ in range(3):
        world.node.issue_receipt("a" * 64)
    assert world.reconcile() == {"node-a": "", "node-b": ""}
    world.back_up()
    client = services.find_client("acme")
    services.revoke_device(services.find_device(client, "laptop"))
    add_device(NewDevice(client="acme", name="late", public_key=new_public_key()))
    for _ in range(300):
        world.node.issue_receipt("a" * 64)
    world.nodes["node-b"].issue_receipt("b" * 64)
    world.reconcile()
    assert world.node.log_size == world.nodes["node-b"].log_size == 304
    world.before = world.logged()
    world.restore()
    assert Device.objects.filter(state=DeviceState.ACTIVE).count() == 2
    return world


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(reach, "connect_by_ssh", world.connect)

    def command(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["control", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return command


# -- bundles


def test_a_restored_control_sends_nothing_and_tells_why_but_takes_what_nodes_have_to_tell(
    grown: World,
) -> None:
    accepted, bundle = grown.node.accepted, grown.node.bundle
    grown.node.seen.clear()
    assert grown.reconcile() == {"node-a": "restored", "node-b": "restored"}
    assert not {"apply", "revoke", "raise"} & set(grown.node.ops())
    assert (grown.node.accepted, grown.node.bundle) == (accepted, bundle)
    assert ReceiptRecord.objects.count() == 304, "receipts are durable here as before"
    assert Node.objects.get(name="node-a").last_error == "restored"


def test_the_attack_without_the_rule_nodes_would_be_sent_the_past(grown: World) -> None:
    """The control of these tests: without `restored.json` it goes on at once, and only the node's own number stops it."""
    settings.PATHS.restored.unlink()
    grown.nodes["node-b"].seen.clear()
    assert grown.reconcile()["node-b"] == ""
    assert "apply" in grown.nodes["node-b"].ops()


def test_the_epoch_is_raised_with_the_restore_key_and_nodes_go_on(grown: World, run: Run) -> None:
    write_private_key(grown.place / "restore.key", RESTORE)
    settings.PATHS.restore_public.write_text(f"{public_text(RESTORE)}\n")
    raising = ("epoch", "raise", "--restore-key", str(grown.place / "restore.key"))
    assert run("epoch", "show")[1]["must_be_raised"]
    code, answer = run(*raising)
    assert (code, "acme/laptop" in answer["error"]["message"]) == (1, True), (
        "who was revoked is not let in unasked"
    )
    assert "phone" not in answer["error"]["message"]
    assert current_epoch() == 1
    assert run(*raising, "--missing", "revoke") == (0, {"ok": True, "epoch": 2, "revoked": 1})
    assert grown.reconcile() == {"node-a": "", "node-b": ""}
    assert grown.node.accepted is not None
    assert (grown.node.accepted.epoch, grown.node.accepted.generation) == (2, 1)
    assert set(grown.node.peers) == {Device.objects.get(name="phone").public_key}
    assert not run("epoch", "show")[1]["must_be_raised"]
    assert run(*raising)[1]["error"]["message"].startswith("epoch: only after a restore")


def test_the_epoch_goes_above_every_node_s(grown: World, run: Run) -> None:
    """An earlier restore raised it, and this backup is older than that."""
    write_private_key(grown.place / "restore.key", RESTORE)
    grown.nodes["node-b"].raised = 7
    raising = ("epoch", "raise", "--restore-key", str(grown.place / "restore.key"), "--missing", "keep")
    assert run(*raising)[1]["epoch"] == 8
    assert grown.reconcile() == {"node-a": "", "node-b": ""}
    assert {node.accepted.epoch for node in grown.nodes.values() if node.accepted} == {8}
    assert len(grown.node.peers) == 2


def test_a_node_that_does_not_answer_is_left_out_only_by_name(grown: World, run: Run) -> None:
    write_private_key(grown.place / "restore.key", RESTORE)
    grown.nodes["node-b"].down = True
    raising = ("epoch", "raise", "--restore-key", str(grown.place / "restore.key"), "--missing", "keep")
    code, answer = run(*raising)
    assert (code, "node-b" in answer["error"]["message"]) == (1, True)
    assert current_epoch() == 1
    assert run(*raising, "--without", "node-b")[1]["epoch"] == 2


def test_another_restore_key_raises_nothing(grown: World, run: Run) -> None:
    """Here it is refused before it is used; a node refuses what it signed."""
    write_private_key(grown.place / "other.key", Ed25519PrivateKey.generate())
    settings.PATHS.restore_public.write_text(f"{public_text(RESTORE)}\n")
    raising = ("epoch", "raise", "--restore-key", str(grown.place / "other.key"), "--missing", "keep")
    assert run(*raising)[0] == 1
    assert current_epoch() == 1
    settings.PATHS.restore_public.unlink()
    assert run(*raising)[0] == 0
    assert grown.reconcile() == {"node-a": "bundle_refused", "node-b": "bundle_refused"}
    assert grown.node.accepted is not None
    assert grown.node.accepted.epoch == 1


def test_a_node_that_is_in_a_higher_epoch_than_control_gets_nothing(grown: World, run: Run) -> None:
    write_private_key(grown.place / "restore.key", RESTORE)
    raising = ("epoch", "raise", "--restore-key", str(grown.place / "restore.key"), "--missing", "keep")
    run(*raising)
    grown.nodes["node-b"].raised = 3
    assert grown.reconcile()["node-b"] == "refused"
    assert EpochRaise.objects.count() == 1


# -- the log


def test_a_restored_control_signs_no_head(grown: World) -> None:
    grown.reconcile()
    assert list(CheckpointRecord.objects.values_list("size", flat=True)) == [3]
    with pytest.raises(RestoredError, match="frozen"):
        Keeper(settings.PATHS.log, grown.keys.checkpoints, restored=read_restored(settings.PATHS)).keep()


def test_the_attack_without_the_rule_it_would_sign_a_fork(grown: World, tmp_path: Path) -> None:
    """The control of these tests: what comes first from another node is logged where another receipt lies for all to see."""
    watching = Memory(tmp_path / "seen", grown.policy())
    seen = Checkpoint.parse(Note.parse(grown.node.checkpoint.encode()).text)
    (tmp_path / "seen").write_text(grown.node.checkpoint)
    grown.node.down = True
    for _ in range(400):
        grown.nodes["node-b"].issue_receipt("b" * 64)
    settings.PATHS.restored.unlink()
    grown.reconcile()
    forked = CheckpointRecord.objects.last()
    assert forked is not None
    assert forked.size > seen.size
    with pytest.raises(ConsistencyError):
        watching.advance(prove_continuation(seen.size, settings.PATHS.log))


def test_the_log_goes_on_where_it_was_and_receipts_get_their_places_back(
    grown: World, tmp_path: Path, run: Run
) -> None:
    watching = Memory(tmp_path / "seen", grown.policy())
    (tmp_path / "seen").write_text(grown.node.checkpoint)
    code, answer = run("log", "compare")
    assert (code, answer["caught_up"]) == (0, 301)
    last = CheckpointRecord.objects.last()
    assert last is not None
    assert last.note == grown.node.checkpoint, "exactly the head that everybody has seen"
    assert UnclaimedPlace.objects.count() == 301
    grown.nodes["node-b"].issue_receipt("b" * 64)
    grown.reconcile()
    logged = grown.logged()
    before = grown.before
    assert {receipt: logged[receipt] for receipt in before} == before
    assert sorted(place for place in logged.values() if place is not None) == list(range(305))
    assert not UnclaimedPlace.objects.exists()
    assert watching.advance(prove_continuation(304, settings.PATHS.log)).size == 305
    for record in ReceiptRecord.objects.filter(place__in=(0, 3, 150, 303, 304)):
        prove(record, settings.PATHS.log).verify(record.signed().canonical_bytes(), grown.policy())
    assert run("log", "compare")[1]["error"]["message"].startswith("log: the log is not frozen")


def test_receipts_that_nobody_has_any_more_stay_as_hashes(grown: World, tmp_path: Path) -> None:
    watching = Memory(tmp_path / "seen", grown.policy())
    (tmp_path / "seen").write_text(grown.node.checkpoint)
    grown.log().compare(grown.places(), [], [])
    del grown.node.journal[3:203]  # the notary dropped them: control had them for good
    Node.objects.filter(name="node-a").update(receipts_position=3, receipts_past="")
    grown.reconcile()
    assert UnclaimedPlace.objects.count() == 200
    grown.nodes["node-b"].issue_receipt("b" * 64)
    grown.reconcile()
    assert ReceiptRecord.objects.latest("place").place == 304
    assert watching.advance(prove_continuation(304, settings.PATHS.log)).size == 305


def test_one_node_that_shows_the_newest_head_is_enough(grown: World) -> None:
    grown.nodes["node-b"].checkpoint, grown.nodes["node-b"].tiles = "", {}
    assert grown.log().compare(grown.places(), [], []) == 301


def test_a_copy_of_the_folder_is_as_good_as_a_node(grown: World) -> None:
    rescued = grown.place / "rescued"
    for path, text in {**grown.node.tiles}.items():
        (rescued / path).parent.mkdir(parents=True, exist_ok=True)
        (rescued / path).write_bytes(decode_base64(text))
    (rescued / "checkpoint").write_text(grown.node.checkpoint)
    place = Place("rescued", lambda path: load_tile(rescued, path))
    assert grown.log().compare([place], [], ["node-a", "node-b"]) == 301


def test_where_nothing_was_published_since_there_is_nothing_to_catch_up(world: World) -> None:
    world.node.issue_receipt("a" * 64)
    world.reconcile()
    world.back_up()
    world.restore()
    assert world.log().compare(world.places(), [], []) == 0
    world.node.issue_receipt("a" * 64)
    world.reconcile()
    assert [row.size for row in CheckpointRecord.objects.all()] == [1, 2]


def test_a_log_that_was_empty_goes_on_too(world: World) -> None:
    world.back_up()
    world.restore()
    assert world.log().compare(world.places(), [], []) == 0
    assert LogRelease.objects.get().size == 0


def frozen(world: World) -> None:
    assert not LogRelease.objects.exists()
    assert CheckpointRecord.objects.last().size == 3  # type: ignore[union-attr]
    with pytest.raises(RestoredError):
        Keeper(settings.PATHS.log, world.keys.checkpoints, restored=read_restored(settings.PATHS)).keep()


def test_two_nodes_that_show_different_logs_are_an_alarm(grown: World) -> None:
    signer = read_log_signer(settings.PATHS)
    grown.nodes["node-b"].checkpoint = signer.sign(200, b"f" * 32, 1).render().decode()
    with pytest.raises(RefusedError, match="ALARM: node-b shows another log"):
        grown.log().compare(grown.places(), [], [])
    frozen(grown)


def test_a_head_that_somebody_else_signed_is_refused(grown: World) -> None:
    text, *signatures = grown.node.checkpoint.split("\n\n")
    grown.node.checkpoint = "\n\n".join((text.replace("304", "400"), *signatures))
    with pytest.raises(RefusedError, match="node-a shows a head that is not signed"):
        grown.log().compare(grown.places(), [], [])
    frozen(grown)


@pytest.mark.parametrize("change", ["missing", "other"])
def test_hashes_that_are_missing_or_others_are_refused(grown: World, change: str) -> None:
    path = next(path for path in grown.node.tiles if path.startswith("tile/0/000"))
    full = "tile/0/000"
    assert full in grown.node.tiles, path
    if change == "missing":
        grown.node.tiles = {path: text for path, text in grown.node.tiles.items() if path != full}
    else:
        grown.node.tiles[full] = encode_base64(b"x" * 8192)
    with pytest.raises(Exception, match="tile"):
        grown.log().compare(grown.places("node-a"), [], [])
    frozen(grown)


def test_a_node_that_is_down_keeps_the_log_frozen(grown: World, run: Run) -> None:
    grown.node.down = True
    code, answer = run("log", "compare")
    assert (code, "node-a" in answer["error"]["message"]) == (1, True)
    frozen(grown)
    code, answer = run("log", "compare", "--without", "node-a")
    assert (code, answer["caught_up"]) == (0, 301), "node-b shows it as well"
    assert LogRelease.objects.get().without == ["node-a"]


def test_a_witness_that_has_seen_more_keeps_it_frozen(grown: World, tmp_path: Path) -> None:
    """It cosigned a head that no node that answers has: only a witness knows, and it is enough."""
    newest = {name: (node.checkpoint, node.tiles) for name, node in grown.nodes.items()}
    with serving(tmp_path, "alice.example") as config:
        tree = TileReader(grown.places("node-a")[0].load, 304)
        signer = read_log_signer(settings.PATHS)
        Witness(config).cosign(Note.parse(grown.node.checkpoint.encode()), tree, signer.verifier_keys)
        for node in grown.nodes.values():
            node.checkpoint = CheckpointRecord.objects.get().note
            node.tiles = {path: text for path, text in node.tiles.items() if path.endswith(".p/3")}
        with pytest.raises(RefusedError, match="larger"):
            grown.log().compare(grown.places(), [Witness(config)], [])
        frozen(grown)
        for name, node in grown.nodes.items():
            node.checkpoint, node.tiles = newest[name]
        assert grown.log().compare(grown.places(), [Witness(config)], []) == 301


def test_a_witness_that_does_not_answer_keeps_it_frozen(grown: World, tmp_path: Path) -> None:
    with serving(tmp_path, "alice.example") as config:
        pass
    with pytest.raises(UnavailableError):
        grown.log().compare(grown.places(), [Witness(config)], [])
    frozen(grown)


def test_where_the_hashes_are_lost_another_log_begins_under_another_name(
    grown: World, run: Run, tmp_path: Path
) -> None:
    """Everybody who knew the old one sees that it is another, and its first new entry is the old one's last head."""
    old, origin = grown.policy(), read_log_signer(settings.PATHS).origin
    last = grown.node.checkpoint
    grown.node.tiles = {}
    code, answer = run("log", "compare", "--without", "node-b")
    assert code == 1
    frozen(grown)
    code, answer = run("log", "succeed", "--size", "310")
    assert (code, answer["size"]) == (0, 311)
    signer = read_log_signer(settings.PATHS)
    assert signer.origin != origin
    assert not {key.public for key in signer.verifier_keys} & {old.ed25519.public, old.mldsa44.public}
    grown.node.issue_receipt("a" * 64)
    grown.reconcile()
    for node in grown.nodes.values():
        head = grown.policy().verify(Note.parse(node.checkpoint.encode()))
        assert head.size > 311
        tree = TileReader(grown.places(node.name)[0].load, head.size)
        assert merkle.root(tree, head.size) == head.root
        assert tree.subtree(0, 310) == merkle.leaf_hash(last.encode())
    with pytest.raises(OtherLogError):
        old.verify(Note.parse(grown.node.checkpoint.encode()))
    for record in ReceiptRecord.objects.filter(place__isnull=False).order_by("-place")[:3]:
        prove(record, settings.PATHS.log).verify(record.signed().canonical_bytes(), grown.policy())
    before = {receipt: place for receipt, place in grown.before.items() if place is not None and place < 3}
    assert {receipt: grown.logged()[receipt] for receipt in before} == before
    assert all(place is not None for place in grown.logged().values())


def test_keys_are_replaced_by_nothing_but_a_frozen_log_s_end(world: World, run: Run) -> None:
    before = read_log_signer(settings.PATHS).verifier_keys
    assert run("log", "succeed")[0] == run("log", "compare")[0] == 1
    assert read_log_signer(settings.PATHS).verifier_keys == before
    assert replace_log_keys(settings.PATHS).verifier_keys != before

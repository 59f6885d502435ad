"""Backups: whole, encrypted, signed, consistent while control works; and nothing else is ever restored."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from control_cast import new_public_key, stored_node
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import connection, connections
from simulated_node import SimulatedNode

from appliance.core.errors import ApplianceError, HostError, RefusedError
from appliance.core.receipt import NodeKey, make_keyring
from appliance.core.signing import public_text
from appliance.transparency import merkle
from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.note import Note
from appliance.transparency.tiles import Tiles
from control.audit.services import admit_receipt
from control.backup import container
from control.backup import restore as module
from control.backup.age import Identity, Passphrase, make_identity
from control.backup.create import Source, create_backup
from control.backup.manifest import Manifest
from control.backup.restore import Target, restore_backup, verify_backup
from control.clients.enrolment import add_device
from control.clients.models import Client, Device
from control.clients.requests import NewDevice
from control.commands.init import Owners, find_owners
from control.config import ControlPaths, read_config
from control.fleet.models import Node
from control.journal import event as journal
from control.journal.actors import acting
from control.pins.models import ModelPin
from control.reconciler.keys import ReconcilerKeys
from control.transparency import keeper
from control.transparency.keeper import Keeper

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        "connection.vendor != 'sqlite'", reason="test_backup_postgresql.py has the other database"
    ),
]

IDENTITY = make_identity()
ACTOR = journal.Actor(kind=journal.ActorKind.UNIX, name="tests")
OWNERS: Owners = find_owners(None, None)


class World:
    """A control with a node whose receipts come when a test says so."""

    def __init__(self, keys: ReconcilerKeys) -> None:
        self.keys = keys
        self.row = stored_node()
        Node.objects.update(wireguard_public_key=new_public_key(), receipt_public_key=new_public_key())
        self.node = SimulatedNode("node-a", public_text(keys.bundle))
        certified = NodeKey(node="node-a", public_key=public_text(self.node.receipt_key))
        self.keyring = make_keyring((certified,), keys.log)
        self.keeper = Keeper(settings.PATHS.log, keys.checkpoints)

    def admit(self) -> None:
        assert admit_receipt(self.row, self.node.issue_receipt("a" * 64), self.keyring)

    def grow(self, count: int) -> None:
        for _ in range(count):
            self.admit()
        self.keeper.keep()


@pytest.fixture
def world(keys: ReconcilerKeys, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(keeper, "INTERVAL_S", 0.0)
    return World(keys)


@pytest.fixture
def acme(world: World) -> Client:
    return Client.objects.create(name="acme", home=world.row, allowed_models=["tiny"])


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's address must fit."""
    folder = Path(tempfile.mkdtemp(prefix="bk-"))
    yield folder
    shutil.rmtree(folder)


def source(*, keys: bool = True) -> Source:
    return Source(settings.CONFIG, Path(connection.settings_dict["NAME"]), keys=keys)


def nothing(_count: int) -> None:
    """Nobody looks at the progress."""


def back_up(file: Path, **options: bool) -> Manifest:
    return create_backup(source(**options), file, IDENTITY.recipient, nothing)


def put_back(file: Path, state: Path, identity: Identity = IDENTITY, key: str | None = None) -> Path:
    restore_backup(file, identity, Target(state, OWNERS, key), nothing)
    return state


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_backup_restores_to_the_same_control(world: World, acme: Client, place: Path) -> None:
    world.grow(300)
    add_device(NewDevice(client="acme", name="laptop", public_key=new_public_key()))
    manifest = back_up(place / "file")
    assert (manifest.receipts, manifest.devices, manifest.restored.log_size) == (300, 1, 300)
    state = put_back(place / "file", place / "state", key=public_text(world.keys.bundle))
    paths = ControlPaths(state)
    for folder in ("keys", "public", "web"):
        for before in (settings.PATHS.state / folder).iterdir():
            assert (state / folder / before.name).read_bytes() == before.read_bytes()
    with closing(sqlite3.connect(paths.database)) as copy:
        devices = copy.execute("SELECT public_key FROM clients_device").fetchall()
    assert devices == [(Device.objects.get().public_key,)]
    config = read_config(paths.config)
    assert config.state_dir == str(state)
    assert config.listen.tls is not None
    assert Path(config.listen.tls.key) == paths.console_key
    assert config.model_copy(update={"state_dir": "", "listen": None}) == settings.CONFIG.model_copy(
        update={"state_dir": "", "listen": None}
    )


def test_modes_and_folders_are_those_of_init(world: World, place: Path) -> None:
    world.grow(3)
    back_up(place / "file")
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600
    state = put_back(place / "file", place / "state")
    wanted = {
        "keys": 0o700,
        "keys/bundle.key": 0o600,
        "web/secret.key": 0o640,
        "public/ca.pem": 0o644,
        "db": 0o2770,
        "db/control.sqlite3": 0o660,
        "log/tile/0/000.p/3": 0o644,
        "log/tile/0": 0o755,
        "run": 0o2750,
        "restored.json": 0o644,
        ".": 0o755,
    }
    assert {path: stat.S_IMODE((state / path).stat().st_mode) for path in wanted} == wanted
    assert files_of(place) == {"file", *(f"state/{name}" for name in files_of(state))}, "nothing is left"


def test_while_others_write_the_picture_is_that_of_one_moment(
    world: World, acme: Client, pin: ModelPin, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads add devices and receipts, and the log grows, until three backups were made of it."""
    monkeypatch.setattr(
        "control.backup.snapshot._PAGES", 8
    )  # many steps: much can change between two of them
    world.grow(50)
    add_device(NewDevice(client="acme", name="first", public_key=new_public_key()))
    stop = threading.Event()
    failures: list[Exception] = []

    def repeat(step: Callable[[int], object]) -> None:
        number = 0
        try:
            while not stop.is_set():
                step(number)
                number += 1
        except Exception as error:  # noqa: BLE001 - the test shows it
            failures.append(error)
        finally:
            connections.close_all()

    def device(number: int) -> None:
        with acting(journal.Source.CLI, ACTOR):  # threads inherit no actor
            add_device(NewDevice(client="acme", name=f"d{number}", public_key=new_public_key()))

    steps = (device, lambda _: world.grow(3))
    threads = [threading.Thread(target=repeat, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    manifests, meanwhile = [], []
    try:
        for number in range(3):
            before = Device.objects.count()
            manifests.append(back_up(place / f"file{number}"))
            meanwhile.append(Device.objects.count() - before)
            while Device.objects.count() <= before + 3:  # others go on
                assert not failures
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    assert any(meanwhile), "somebody wrote while a backup was made"
    assert [one.devices for one in manifests] == sorted({one.devices for one in manifests}), "it did change"
    for number, manifest in enumerate(manifests):
        state = put_back(place / f"file{number}", place / f"state{number}")
        assert_consistent(ControlPaths(state), manifest)


def assert_consistent(paths: ControlPaths, manifest: Manifest) -> None:
    """The counter is not behind, every place below the head has a receipt or an event, and each leaf is what lies there."""
    with closing(sqlite3.connect(paths.database)) as copy:
        assert copy.execute("PRAGMA foreign_key_check").fetchall() == []
        (last,) = copy.execute("SELECT last FROM clients_addresscounter").fetchone()
        indexes = [index for (index,) in copy.execute('SELECT "index" FROM clients_device ORDER BY 1')]
        assert indexes == list(range(indexes[0], last + 1))
        placed = copy.execute(
            "SELECT place, key, text, signature FROM audit_receiptrecord WHERE place IS NOT NULL ORDER BY place"
        ).fetchall()
        events = copy.execute(
            "SELECT place, text FROM journal_eventplace JOIN journal_auditevent ON event_id = number"
        ).fetchall()
    head = Checkpoint.parse(Note.parse((paths.log / "checkpoint").read_bytes()).text)
    assert head.size == manifest.restored.log_size == len(placed) + len(events)
    tiles = Tiles(paths.log, head.size)
    assert merkle.root(tiles, head.size) == head.root
    for place, key, text, signature in placed:
        entry = f'{{"key":"{key}","receipt":{text},"signature":"{signature}"}}'.encode()
        assert tiles.subtree(0, place) == merkle.leaf_hash(entry)
    for place, text in events:
        assert tiles.subtree(0, place) == merkle.leaf_hash(text.encode())


def test_the_control_of_the_test_above_a_copy_of_the_file_would_not_hold(world: World, place: Path) -> None:
    """Whoever copies the file of a database that is being written has something else: what is committed lies in the log beside it."""
    world.grow(3)
    live = Path(connection.settings_dict["NAME"])
    shutil.copy(live, place / "copy")
    with closing(sqlite3.connect(place / "copy")) as copy:
        try:
            found = copy.execute("SELECT COUNT(*) FROM audit_receiptrecord").fetchone()
        except sqlite3.DatabaseError:
            found = None
    assert found != (3,)


def test_private_keys_can_be_left_out(world: World, place: Path) -> None:
    manifest = back_up(place / "file", keys=False)
    assert not manifest.keys
    state = put_back(place / "file", place / "state")
    assert files_of(state / "keys") == files_of(state / "web") == set()
    assert (state / "public/bundle.pub").exists()


def test_nothing_of_it_is_readable_without_the_key(world: World, place: Path) -> None:
    back_up(place / "file")
    sealed = (place / "file").read_bytes()
    for secret in (b"PRIVATE KEY", b"SQLite format", b"node-a", b"control.json"):
        assert secret not in sealed
    with pytest.raises(RefusedError, match="another key"):
        verify_backup(place / "file", make_identity(), None, nothing)


def test_a_passphrase_does_as_well(world: World, place: Path) -> None:
    passphrase = Passphrase("correct horse battery staple", log2n=4)
    create_backup(source(), place / "file", passphrase, nothing)
    assert verify_backup(place / "file", passphrase, None, nothing).manifest.keys


def test_nothing_is_ever_overwritten(world: World, place: Path) -> None:
    back_up(place / "file")
    before = (place / "file").read_bytes()
    with pytest.raises(RefusedError, match="already"):
        back_up(place / "file")
    assert (place / "file").read_bytes() == before
    state = place / "state"
    state.mkdir()
    (state / "anything").touch()
    with pytest.raises(RefusedError, match="not empty"):
        put_back(place / "file", state)
    assert files_of(place) == {"file", "state/anything"}
    (state / "anything").unlink()
    put_back(place / "file", state)


@pytest.mark.parametrize("where", [0.0, 0.02, 0.3, 0.9, 1.0])
def test_a_damaged_file_leaves_nothing_behind(world: World, place: Path, where: float) -> None:
    back_up(place / "file")
    data = bytearray((place / "file").read_bytes())
    data[min(int(where * len(data)), len(data) - 1)] ^= 1
    (place / "file").write_bytes(data)
    with pytest.raises(RefusedError):
        put_back(place / "file", place / "state")
    assert files_of(place) == {"file"}
    assert [path.name for path in place.iterdir()] == ["file"]


def test_a_cut_file_is_refused(world: World, place: Path) -> None:
    back_up(place / "file")
    data = (place / "file").read_bytes()
    for length in (0, 10, 200, len(data) // 2, len(data) - 1):
        (place / "file").write_bytes(data[:length])
        with pytest.raises(RefusedError):
            verify_backup(place / "file", IDENTITY, None, nothing)


def test_a_backup_that_failed_leaves_nothing_behind(
    world: World, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.grow(1)
    monkeypatch.setattr("control.backup.create.load_tile", lambda *_: None)
    with pytest.raises(HostError):
        back_up(place / "file")
    assert list(place.iterdir()) == []
    assert list(settings.PATHS.database_folder.glob(".backup-*")) == []


def test_what_a_crash_left_is_removed_by_the_next_one(world: World, place: Path) -> None:
    left = settings.PATHS.database_folder / ".backup-crashed"
    left.mkdir()
    (left / "control.sqlite3").touch()
    back_up(place / "file")
    assert not left.exists()


class TestForged:
    """Whoever has the public recipient can encrypt. What was not signed by control is refused all the same."""

    @staticmethod
    def forge(
        world: World,
        place: Path,
        change: Callable[[container.Packer, str, bytes], None],
        key: Ed25519PrivateKey,
    ) -> Path:
        """Pack a backup anew with other content and a manifest that says so, signed with a key."""
        back_up(place / "true")
        forged = place / "forged"
        content: dict[str, bytes] = {}
        with (place / "true").open("rb") as file:
            unpacked = container.unpack(
                file, IDENTITY, lambda path, _, stream: content.update({path: stream.read()}), nothing
            )
        with forged.open("wb") as file, container.packing(file, IDENTITY.recipient, nothing) as packer:
            for path, data in content.items():
                change(packer, path, data)
            manifest = unpacked.manifest.model_copy(update={"files": tuple(packer.members)})
            packer.close(manifest, key)
        return forged

    def test_the_control_of_these_tests_is_restored(self, world: World, place: Path) -> None:
        same = self.forge(world, place, lambda packer, path, data: packer.add(path, data), world.keys.bundle)
        put_back(same, place / "state")

    def test_another_key_s_signature(self, world: World, place: Path) -> None:
        thief = Ed25519PrivateKey.generate()
        forged = self.forge(world, place, lambda packer, path, data: packer.add(path, data), thief)
        with pytest.raises(RefusedError, match="not signed"):
            put_back(forged, place / "state")

    def test_a_control_of_the_thief_s_own(self, world: World, place: Path) -> None:
        """It holds together; only what nodes know tells it from the true one."""
        thief = Ed25519PrivateKey.generate()

        def change(packer: container.Packer, path: str, data: bytes) -> None:
            if path == "public/bundle.pub":
                data = public_text(thief).encode()
            if not path.startswith("keys/"):
                packer.add(path, data)

        forged = self.forge(world, place, change, thief)
        with pytest.raises(RefusedError, match="another control"):
            put_back(forged, place / "state", key=public_text(world.keys.bundle))

    @pytest.mark.parametrize("path", ["db/control.sqlite3", "restored.json", "public/bundle.pub"])
    def test_files_that_do_not_belong_together_though_signed(
        self, world: World, place: Path, path: str
    ) -> None:
        def change(packer: container.Packer, name: str, data: bytes) -> None:
            packer.add(name, bytes(len(data)) if name == path else data)

        forged = self.forge(world, place, change, world.keys.bundle)
        with pytest.raises(ApplianceError):
            put_back(forged, place / "state")
        assert not (place / "state").exists()

    @pytest.mark.parametrize(
        "path",
        ["../outside", "/etc/passwd", "keys/../../x", "log/../x", "db/other", "keys/.hidden", "keys/a/b"],
    )
    def test_a_path_that_leads_elsewhere(self, world: World, place: Path, path: str) -> None:
        with (place / "file").open("wb") as file:
            with container.packing(file, IDENTITY.recipient, nothing) as packer:
                entry = container._entry(path, 0)
                packer.tar.addfile(entry)
        with pytest.raises(RefusedError):
            put_back(place / "file", place / "state")
        assert files_of(place) == {"file"}

    def test_a_link(self, world: World, place: Path) -> None:
        with (place / "file").open("wb") as file:
            with container.packing(file, IDENTITY.recipient, nothing) as packer:
                entry = container._entry("keys/bundle.key", 0)
                entry.type, entry.linkname = b"2", "/etc/passwd"
                packer.tar.addfile(entry)
        with pytest.raises(RefusedError):
            put_back(place / "file", place / "state")

    def test_a_newer_version_s(self, world: World, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        back_up(place / "file")
        monkeypatch.setattr(module, "__version__", "0.0.9")
        with pytest.raises(RefusedError, match="version"):
            put_back(place / "file", place / "state")


def test_a_tile_of_the_log_that_was_changed_is_found_before_it_is_backed_up(
    world: World, place: Path
) -> None:
    world.grow(600)
    tile = settings.PATHS.log / "tile/0/000"
    good = tile.read_bytes()
    tile.write_bytes(good[:64] + bytes(32) + good[96:])
    with pytest.raises(HostError, match="ALARM"):
        back_up(place / "file")
    tile.write_bytes(good)
    back_up(place / "file")


def test_the_manifest_says_what_is_in_it(world: World, place: Path) -> None:
    world.grow(2)
    manifest = back_up(place / "file")
    state = put_back(place / "file", place / "state")
    digests = {one.path: one.sha256 for one in manifest.files}
    assert set(digests) == files_of(state)
    for path, digest in digests.items():
        if path != "control.json":  # which names its own folder
            assert hashlib.sha256((state / path).read_bytes()).hexdigest() == digest
    assert json.loads((state / "restored.json").read_text())["backup"] == manifest.restored.backup

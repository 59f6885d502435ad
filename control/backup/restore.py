"""Puts a backup back: everything is unpacked beside the place and checked there, and then takes its name in one step.

What is restored knows less than the world does: nodes have accepted later bundles, the log has shown later heads. `restored.json` in the
state says so; until the epoch was raised the reconciler sends no bundle, and until the log was compared it signs no head.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from appliance import __version__
from appliance.core.errors import HostError, RefusedError
from appliance.core.names import random_id
from appliance.core.signing import public_text, read_private_key
from appliance.core.storage import sync_folder
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.note import Note, VerifierKey
from appliance.transparency.tiles import load_tile
from control.backup.age import Unlock
from control.backup.container import Content, Progress, Unpacked, unpack
from control.backup.manifest import Manifest
from control.backup.restored import read_restored
from control.backup.snapshot import (
    Facts,
    check_sqlite,
    connect_postgresql,
    observe_facts,
    run_postgresql,
    verify_empty_postgresql,
)
from control.backup.tree import verify_tree
from control.commands.init import Owners, make_folders, set_owners
from control.config import ControlConfig, ControlPaths, Postgresql, read_config

_PIECE: Final = 2**20
_MODES: Final = {"keys": 0o600, "public": 0o644, "web": 0o640, "db": 0o660, "log": 0o644}


@dataclass(frozen=True)
class Target:
    """Where a backup is restored to.

    Attributes:
        state: The folder; it must be empty or not there.
        owners: Of what is made.
        bundle_key: That must have signed it, canonical base64; None: whichever is in it.
    """

    state: Path
    owners: Owners
    bundle_key: str | None = None


def verify_backup(file: Path, unlock: Unlock, bundle_key: str | None, progress: Progress) -> Unpacked:
    """Check everything that a restore checks, and keep nothing.

    Raises:
        RefusedError, HostError: Saying what is wrong with it.
    """
    with tempfile.TemporaryDirectory(prefix="appliance-verify-") as folder:
        return _unpack_and_check(file, unlock, Path(folder), bundle_key, progress)


def restore_backup(file: Path, unlock: Unlock, target: Target, progress: Progress) -> Unpacked:
    """Make a state folder of a backup; nothing is changed unless all of it is in order.

    Raises:
        RefusedError: If the folder or the database is not empty, or the backup is damaged, forged or of a newer version.
        HostError: If what is in it does not hold together, or cannot be written.
    """
    state = target.state.absolute()
    _verify_empty(state)
    with _staging(state) as folder:
        unpacked = _unpack_and_check(file, unlock, folder, target.bundle_key, progress)
        config = _move_config(folder, state)
        if isinstance(config.database, Postgresql):
            _load_postgresql(config.database, folder / "db/control.pgdump", unpacked.manifest)
        _give(folder, target.owners)
        try:
            folder.rename(state)  # over an empty folder too, rename(2)
            sync_folder(state.parent)
        except OSError as error:
            raise HostError(f"cannot write {state}", hint="name a folder on the same file system") from error
    return unpacked


def _unpack_and_check(
    file: Path, unlock: Unlock, folder: Path, bundle_key: str | None, progress: Progress
) -> Unpacked:
    make_folders(ControlPaths(folder))

    def take(path: str, size: int, content: Content) -> None:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as written:
            while data := content.read(_PIECE):
                written.write(data)
            written.flush()
            os.fsync(written.fileno())
            if written.tell() != size:
                raise RefusedError("the file was cut or changed", field="file", hint="take another copy")

    try:
        with file.open("rb") as stream:
            unpacked = unpack(stream, unlock, take, progress)
    except OSError as error:
        raise HostError(f"cannot read {file}, or write what is in it", hint="is there room?") from error
    _verify_signer(unpacked, bundle_key)
    check_state(folder, unpacked.manifest)
    return unpacked


def _verify_signer(unpacked: Unpacked, bundle_key: str | None) -> None:
    if bundle_key is not None and unpacked.bundle_key != bundle_key:
        raise RefusedError(
            "another control made it",
            field="bundle-key",
            hint="a node's node.json names the key of its control",
        )
    if _number(unpacked.manifest.appliance) > _number(__version__):
        raise RefusedError(
            f"made by version {unpacked.manifest.appliance}",
            field="manifest",
            hint="install that version first",
        )


def check_state(folder: Path, manifest: Manifest) -> None:
    """Check that unpacked files belong together; return None or raise.

    Raises:
        HostError: If the database, the log or a key is not what the manifest or another file says.
    """
    paths = ControlPaths(folder)
    if read_restored(paths) != manifest.restored:
        raise HostError("restored.json is another backup's", hint="take another copy")
    if manifest.keys and _public_half(paths) != (paths.public / "bundle.pub").read_text("ascii").strip():
        raise HostError("keys/bundle.key is not the key of public/bundle.pub", hint="take another copy")
    if manifest.database == "sqlite":
        try:
            _verify_facts(check_sqlite(paths.database), manifest)
        except sqlite3.Error as error:
            raise HostError("the copy of the database is damaged", hint="take another copy") from error
    if manifest.restored.log_size:
        _verify_log(paths, manifest.restored.log_size)


def _verify_facts(facts: Facts, manifest: Manifest) -> None:
    found = facts.epoch, facts.log_size, facts.receipts, facts.devices, facts.migrations
    restored = manifest.restored
    if found != (restored.epoch, restored.log_size, manifest.receipts, manifest.devices, manifest.migrations):
        raise HostError("the database is not the one of the manifest", hint="take another copy")


def _verify_log(paths: ControlPaths, size: int) -> None:
    note = Note.parse((paths.log / "checkpoint").read_bytes())
    first, second = (VerifierKey.parse(line) for line in paths.log_keys.read_text("ascii").splitlines()[:2])
    head = Checkpoint.parse(note.text)
    # Heads before a rotation are signed with keys that are gone; the next start signs the last one again.
    if any(made.by(first) for made in note.signatures):
        Policy(first, second).verify(note)
    if head.size != size:
        raise HostError("log/checkpoint is not the head of the manifest", hint="take another copy")
    verify_tree(lambda path: load_tile(paths.log, path), head)


def _public_half(paths: ControlPaths) -> str:
    return public_text(read_private_key(paths.keys / "bundle.key"))


def _move_config(folder: Path, state: Path) -> ControlConfig:
    """Rewrite control.json for where the state will be; paths below the old state follow."""
    config = read_config(folder / "control.json")
    old, new = config.state_dir, str(state)

    def follow(path: str) -> str:
        return new + path.removeprefix(old) if path.startswith(f"{old}/") else path

    tls = config.listen.tls
    if tls is not None:
        tls = tls.model_copy(update={"certificate": follow(tls.certificate), "key": follow(tls.key)})
    listen = config.listen.model_copy(update={"tls": tls})
    moved = ControlConfig.parse(
        config.model_copy(update={"state_dir": new, "listen": listen}).model_dump(mode="json")
    )
    (folder / "control.json").write_text(moved.model_dump_json(indent=2) + "\n", "utf-8")
    return moved


def _load_postgresql(database: Postgresql, dump: Path, manifest: Manifest) -> None:
    """Load a dump into an empty database, all of it or nothing."""
    verify_empty_postgresql(database)
    options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
    run_postgresql("pg_restore", database, *options, f"--dbname={database.name}", str(dump))
    with connect_postgresql(database) as connection:
        try:
            _verify_facts(observe_facts(connection), manifest)
        except psycopg.Error as error:
            raise HostError("the restored database cannot be read", hint="drop it, then try again") from error
    dump.unlink()


def _give(folder: Path, owners: Owners) -> None:
    """Set modes and owners as `init` does."""
    for kind, mode in _MODES.items():
        for path in (folder / kind).rglob("*"):
            path.chmod(0o755 if path.is_dir() else mode)
    for name in ("control.json", "restored.json"):
        (folder / name).chmod(0o644)
    folder.chmod(0o755)
    set_owners(ControlPaths(folder), owners)
    for path in (folder / "log").rglob("*"):
        os.chown(path, owners.reconciler, owners.reconciler_group)


def _verify_empty(state: Path) -> None:
    try:
        if any(state.iterdir()):
            raise RefusedError(
                "the folder is not empty",
                field="state",
                hint="a living state is never overwritten: move it away",
            )
    except FileNotFoundError:
        pass
    except OSError as error:
        raise HostError(f"cannot read {state}", hint="name a folder that may be made") from error


@contextmanager
def _staging(state: Path) -> Iterator[Path]:
    """Yield a folder beside the state, gone afterwards unless it became the state."""
    folder = state.with_name(f".{random_id()[:8]}")
    try:
        folder.mkdir(mode=0o700, parents=True)
        yield folder
    except OSError as error:
        raise HostError(
            f"cannot write beside {state}", hint="is there room, and may you write there?"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

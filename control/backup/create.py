"""Makes a backup while control goes on.

The database comes first, in one picture. What is copied after it is either older than the picture may be (keys and public files, which
change by hand alone) or cut to it: of the log exactly the tiles of the picture's last head, whatever was added since.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from appliance import __version__
from appliance.core.errors import HostError, RefusedError
from appliance.core.names import random_id
from appliance.core.signing import read_private_key
from appliance.core.storage import sync_folder
from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.note import Note
from appliance.transparency.tiles import RESTORE, WIDTH, load_tile, tile_path, tile_paths
from control.backup.age import Lock
from control.backup.container import Packer, Progress, packing
from control.backup.manifest import Manifest, Restored
from control.backup.snapshot import Facts, take_snapshot
from control.backup.tree import verify_tree
from control.config import ControlConfig, ControlPaths, Postgresql

_HASH_BYTES: Final = 32
_SCRATCH: Final = ".backup-"


@dataclass(frozen=True)
class Source:
    """What is backed up.

    Attributes:
        config: control.json.
        database: SQLite's file, or where PostgreSQL is.
        keys: Private keys too.
    """

    config: ControlConfig
    database: Path | Postgresql
    keys: bool = True


def create_backup(source: Source, target: Path, lock: Lock, progress: Progress) -> Manifest:
    """Write a backup, mode 0600, whole or not at all; return its manifest.

    Args:
        source: What.
        target: The file, which must not be there yet.
        lock: Who may open it.
        progress: Told how many bytes more were read.

    Raises:
        HostError: If a file cannot be read or written, or what is there does not hold together.
        RefusedError: If the target is there, or another backup is being made.
    """
    paths = source.config.paths
    key = read_private_key(paths.keys / "bundle.key")
    with _scratch(paths) as folder, take_snapshot(source.database, folder, progress) as snapshot:
        restored = _describe(snapshot.facts)
        with _new_file(target) as file, packing(file, lock, progress) as packer:
            packer.add("restored.json", restored.canonical_bytes())
            packer.add("control.json", source.config.canonical_bytes())
            _add_keys(packer, paths, private=source.keys)
            with snapshot.path.open("rb") as copy:
                packer.add_stream(snapshot.member, snapshot.path.stat().st_size, copy)
            _add_log(packer, paths.log, snapshot.facts)
            manifest = Manifest(
                appliance=__version__,
                database="postgresql" if isinstance(source.database, Postgresql) else "sqlite",
                migrations=snapshot.facts.migrations,
                restored=restored,
                receipts=snapshot.facts.receipts,
                devices=snapshot.facts.devices,
                keys=source.keys,
                files=tuple(packer.members),
            )
            packer.close(manifest, key)
    return manifest


def _describe(facts: Facts) -> Restored:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Restored(backup=random_id(), taken_at=now, epoch=facts.epoch, log_size=facts.log_size)


def _add_keys(packer: Packer, paths: ControlPaths, *, private: bool) -> None:
    folders = (paths.public, *((paths.keys, paths.web) if private else ()))
    for folder in folders:
        for name, content in sorted(_read_stable(folder).items()):
            packer.add(f"{folder.name}/{name}", content)


def _read_stable(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder as they were together: read until two readings agree, since keys may be rotated meanwhile."""
    try:
        before, now = _read_files(folder), _read_files(folder)
        while now is None or now != before:
            before, now = now, _read_files(folder)
    except OSError as error:
        raise HostError(f"cannot read {folder}", hint="run as the reconciler's user") from error
    return now


def _read_files(folder: Path) -> dict[str, bytes] | None:
    """Return the files of a folder by name; None if one went away meanwhile."""
    names = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except FileNotFoundError:
        return None


def _add_log(packer: Packer, folder: Path, facts: Facts) -> None:
    """Add the tree of the database's last head, and the head."""
    if not facts.log_size:
        return
    head = Checkpoint.parse(Note.parse(facts.head.encode("utf-8")).text)
    verify_tree(lambda path: load_tile(folder, path), head)
    for level, index, width in tile_paths(0, head.size):
        path = tile_path(level, index, width)
        data = load_tile(folder, path)
        if data is None and width < WIDTH:  # it is full by now
            data = (load_tile(folder, tile_path(level, index)) or b"")[: width * _HASH_BYTES]
        if not data:
            raise HostError(f"the log's tile {path} cannot be read", hint=RESTORE)
        packer.add(f"log/{path}", data)
    packer.add("log/checkpoint", facts.head.encode("utf-8"))


@contextmanager
def _scratch(paths: ControlPaths) -> Iterator[Path]:
    """Yield a folder beside the database, as well kept as the database is; what a crash left there is removed first."""
    descriptor = os.open(paths.database_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in paths.database_folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=paths.database_folder) as folder:
            yield Path(folder)
    except BlockingIOError as error:
        raise RefusedError("another backup is being made", hint="try again when it is done") from error
    finally:
        os.close(descriptor)


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    """Yield a file beside the target that takes its name, durably, once the block has ended without an error."""
    beside = target.with_name(f".{target.name}.{random_id()[:8]}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, target)  # unlike rename(2) this overwrites nothing
        finally:
            beside.unlink()
        sync_folder(target.parent)
    except FileExistsError as error:
        raise RefusedError("the file is there already", field="file", hint="name another one") from error
    except OSError as error:
        raise HostError(f"cannot write {target}", hint="is there room, and may you write there?") from error

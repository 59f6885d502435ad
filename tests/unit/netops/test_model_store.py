"""The agent hashes a model's file when it comes and once after every boot; what is not what its name says is removed."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import stat
from pathlib import Path

import pytest

from appliance.core import hashed
from appliance.core.hashed import is_hashed, read_boot_id, record_path
from netops import verity
from netops.agent.models import ModelStore

CONTENT = b"weights " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def never() -> bool:
    return False


def noted(folder: Path) -> bool:
    with (folder / SHA256).open("rb") as file:
        return is_hashed(file.fileno(), folder, SHA256, read_boot_id())


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store that holds one file."""
    made = ModelStore(tmp_path)
    assert made.store(io.BytesIO(CONTENT), SHA256, len(CONTENT))
    return made


def test_a_file_that_came_is_noted_and_named_once(store: ModelStore, tmp_path: Path) -> None:
    assert noted(tmp_path)
    assert store.digests() == [SHA256]
    note = record_path(tmp_path, SHA256).stat()
    assert stat.S_IMODE(note.st_mode) == 0o444


def test_what_was_hashed_in_this_boot_is_not_hashed_again(store: ModelStore, tmp_path: Path) -> None:
    def asked() -> bool:
        raise AssertionError("it read a piece")

    assert store.hash_anew(asked) == []
    os.utime(tmp_path / SHA256)  # positive control
    with pytest.raises(AssertionError):
        store.hash_anew(asked)


def test_after_a_boot_it_is_hashed_once(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    monkeypatch.setattr(hashed, "BOOT_ID", boot)
    with (tmp_path / SHA256).open("rb") as file:
        assert not is_hashed(file.fileno(), tmp_path, SHA256, hashed.read_boot_id())
        assert store.hash_anew(never) == []
        assert is_hashed(file.fileno(), tmp_path, SHA256, hashed.read_boot_id())


def test_a_file_with_other_bytes_is_removed_so_that_control_sends_it_again(
    store: ModelStore, tmp_path: Path
) -> None:
    path = tmp_path / SHA256
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"W")
    assert store.hash_anew(never) == [SHA256]
    assert store.digests() == []
    assert not record_path(tmp_path, SHA256).exists()
    assert store.store(io.BytesIO(CONTENT), SHA256, len(CONTENT))
    assert noted(tmp_path)


def test_an_agent_that_stops_does_not_hash_to_the_end(store: ModelStore, tmp_path: Path) -> None:
    os.utime(tmp_path / SHA256)
    assert store.hash_anew(lambda: True) == []
    assert not noted(tmp_path)


def test_a_change_while_it_is_hashed_is_not_noted_away(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / SHA256
    os.utime(path, ns=(0, 0))

    def change() -> bool:
        os.utime(path, ns=(1, 1))
        return False

    store.hash_anew(change)
    assert not noted(tmp_path)
    store.hash_anew(never)
    assert noted(tmp_path)


def test_where_the_file_system_has_fs_verity_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bytes]] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _fd, number, argument: asked.append((number, argument)))
    (tmp_path / "file").write_bytes(CONTENT)
    assert verity.seal(tmp_path / "file")
    ((number, argument),) = asked
    assert number == 1 << 30 | 128 << 16 | ord("f") << 8 | 133  # _IOW('f', 133, struct fsverity_enable_arg)
    assert len(argument) == 128


def test_without_fs_verity_the_file_is_stored_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    (tmp_path / "file").write_bytes(CONTENT)
    assert not verity.seal(tmp_path / "file")
    assert ModelStore(tmp_path).store(io.BytesIO(CONTENT), SHA256, len(CONTENT))
    assert noted(tmp_path)

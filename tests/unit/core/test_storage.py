"""Files are whole or not there, and what must not be overwritten is not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from appliance.core import storage


def test_a_new_file_has_its_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    storage.write_new(tmp_path / "key", b"secret", 0o600)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"secret")]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    storage.write_new(tmp_path / "key", b"first", 0o600)
    with pytest.raises(FileExistsError):
        storage.write_new(tmp_path / "key", b"second", 0o600)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"first")]


@pytest.mark.parametrize("write", [storage.write_new, storage.write_atomic])
def test_a_full_disk_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    def full(_descriptor: int, _mode: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fchmod", full)
    assert callable(write)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "key", b"secret", 0o600)
    assert list(tmp_path.iterdir()) == []

"""The bare disk: fsync that is really asked for, and pages that it does not have yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.bench.receipts.disk import is_in_memory, records_per_s, scratch_parent, unsynced_pages
from appliance.core.errors import HostError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if is_in_memory(tmp_path):
        pytest.skip("temporary files lie in memory")
    return tmp_path


def test_pages_are_unsynced_until_fsync(folder: Path) -> None:
    file = folder / "below" / "file"
    file.parent.mkdir()
    with file.open("wb") as writer:
        writer.write(b"x" * 10_000)
        writer.flush()
        before = unsynced_pages(folder)
        os.fsync(writer.fileno())
        after = unsynced_pages(folder)
    if before is None:
        pytest.skip("this kernel has no cachestat(2)")
    assert (before, after) == (3, 0)


def test_a_group_shares_an_fsync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    assert records_per_s(folder, 100, 8, 0.01) > 0
    assert synced[:3] == [800, 1600, 2400]
    assert list(folder.iterdir()) == []


def test_memory_is_not_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("there is no /dev/shm")
    assert is_in_memory(memory)
    monkeypatch.setenv("TMPDIR", str(memory))
    monkeypatch.setattr("tempfile.tempdir", None)
    if is_in_memory(Path("/var/tmp")):
        with pytest.raises(HostError):
            scratch_parent()
    else:
        assert scratch_parent() == Path("/var/tmp")

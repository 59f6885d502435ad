"""The journal survives what a crash can do to it, and stops at what only damage can do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.errors import HostError
from inference.notary.journal import Journal, JournalDamagedError, JournalUnavailableError

PAYLOADS = st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=8)


def write(path: Path, payloads: list[bytes]) -> None:
    journal = Journal(path)
    assert list(journal.replay()) == []
    journal.append(payloads)
    journal.close()


def read(path: Path) -> list[bytes]:
    journal = Journal(path)
    try:
        return [payload for _, payload in journal.replay()]
    finally:
        journal.close()


@settings(deadline=None, max_examples=60)
@given(PAYLOADS, st.data())
def test_cut_anywhere_a_journal_keeps_every_complete_frame_and_can_be_continued(
    payloads: list[bytes], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, payloads)
        whole = path.read_bytes()
        length = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:length])
        kept = read(path)
        assert kept == payloads[: len(kept)]
        assert sum(8 + len(p) for p in kept) == path.stat().st_size
        journal = Journal(path)
        list(journal.replay())
        (offset,) = journal.append([b"next"])
        assert journal.read(offset) == b"next"
        journal.close()
        assert read(path) == [*kept, b"next"]


@settings(deadline=None, max_examples=60)
@given(PAYLOADS, st.data())
def test_a_changed_byte_never_passes_for_a_frame(payloads: list[bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, payloads)
        changed = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(changed)
        try:
            kept = read(path)
        except JournalDamagedError:
            return
        # A longer length makes the rest an incomplete tail: what is kept is a true beginning.
        assert kept == payloads[: len(kept)]
        assert len(kept) < len(payloads)


def test_a_complete_frame_with_a_bad_check_stops_with_an_alarm_and_a_hint(tmp_path: Path) -> None:
    write(tmp_path / "journal", [b"one", b"two"])
    data = bytearray((tmp_path / "journal").read_bytes())
    data[8] ^= 1
    (tmp_path / "journal").write_bytes(data)
    with pytest.raises(JournalDamagedError, match="ALARM") as caught:
        read(tmp_path / "journal")
    assert caught.value.hint
    assert (tmp_path / "journal").read_bytes() == data  # nothing was repaired


def test_zeros_that_a_torn_write_left_are_cut(tmp_path: Path) -> None:
    write(tmp_path / "journal", [b"one"])
    with open(tmp_path / "journal", "ab") as file:
        file.write(bytes(4096))
    assert read(tmp_path / "journal") == [b"one"]


def test_zeros_in_the_middle_are_damage(tmp_path: Path) -> None:
    write(tmp_path / "journal", [b"one", b"x" * 100])
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data[:11] + bytes(50) + data[61:])
    with pytest.raises(JournalDamagedError):
        read(tmp_path / "journal")


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    list(journal.replay())
    journal.append([b"one"])

    def half(data: bytes) -> None:
        with open(tmp_path / "journal", "ab") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "no space")

    with monkeypatch.context() as full:
        full.setattr(journal, "_write", half)
        with pytest.raises(JournalUnavailableError):
            journal.append([b"two"])
    journal.append([b"three"])
    journal.close()
    assert read(tmp_path / "journal") == [b"one", b"three"]


def test_two_notaries_never_write_the_same_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(HostError, match="another notary"):
        Journal(tmp_path / "journal")
    journal.close()

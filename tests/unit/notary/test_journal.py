"""A segment of the journal survives what a crash can do to it, and stops at what only damage can do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.errors import HostError
from inference.notary.journal import JournalDamagedError, JournalUnavailableError, Segment

HEADER, SECTOR = 16, 512
GROUP = st.lists(st.text('ab{}:"', min_size=1, max_size=700).map(str.encode), min_size=1, max_size=4)
GROUPS = st.lists(GROUP, min_size=1, max_size=4)


def write(path: Path, *groups: list[bytes]) -> None:
    segment, _ = Segment.make(path, groups[0])
    for group in groups[1:]:
        segment.append(group)
    segment.close()


def read(path: Path, *, last: bool = True) -> list[bytes]:
    segment = Segment(path)
    try:
        return [payload for _, payload in segment.replay(last=last)]
    finally:
        segment.close()


def flat(groups: list[list[bytes]]) -> list[bytes]:
    return [payload for group in groups for payload in group]


def length_of(groups: list[list[bytes]]) -> int:
    return sum(HEADER + len(payload) for payload in flat(groups))


@settings(deadline=None, max_examples=80)
@given(GROUPS, st.data())
def test_cut_anywhere_it_keeps_every_complete_frame_and_can_be_continued(
    groups: list[list[bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.frames"
        write(path, [b"start"], *groups)
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(HEADER + 5, len(whole)))])
        first, *kept = read(path)
        assert first == b"start"
        assert kept == flat(groups)[: len(kept)]
        assert length_of([[first, *kept]]) == path.stat().st_size
        segment = Segment(path)
        list(segment.replay(last=True))
        (offset,) = segment.append([b"next"])
        assert segment.read(offset) == b"next"
        segment.close()
        assert read(path) == [first, *kept, b"next"]


@settings(deadline=None, max_examples=150)
@given(GROUPS, st.data())
def test_whatever_sectors_of_the_last_group_are_lost_the_groups_before_are_kept(
    groups: list[list[bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.frames"
        groups = [[b"start"], *groups]
        write(path, *groups)
        whole = bytearray(path.read_bytes())
        durable = length_of(groups[:-1])
        for sector in range(durable // SECTOR, len(whole) // SECTOR + 1):
            if data.draw(st.booleans()):
                begin = max(durable, sector * SECTOR)
                end = min(len(whole), (sector + 1) * SECTOR)
                whole[begin:end] = bytes(end - begin)
        path.write_bytes(whole)
        kept = read(path)
        assert kept == flat(groups)[: len(kept)]
        assert len(kept) >= len(flat(groups[:-1]))


@settings(deadline=None, max_examples=150)
@given(GROUPS, st.data())
def test_a_changed_byte_never_passes_for_a_frame_and_in_an_earlier_group_stops_with_an_alarm(
    groups: list[list[bytes]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1.frames"
        write(path, *groups)
        changed = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(changed)
        try:
            kept = read(path)
        except JournalDamagedError:
            assert path.read_bytes() == changed, "nothing is repaired"
            return
        # The last frame's longer length makes it incomplete: what is kept is a true beginning.
        assert place >= length_of(groups[:-1])
        assert kept == flat(groups)[: len(kept)]
        assert len(kept) < len(flat(groups))


@pytest.mark.parametrize("groups", [([b"one", b"two"],), ([b"one"], [b"two"])])
def test_a_complete_frame_with_a_bad_check_stops_with_an_alarm_and_a_hint(
    tmp_path: Path, groups: tuple[list[bytes], ...]
) -> None:
    write(tmp_path / "1.frames", *groups)
    data = bytearray((tmp_path / "1.frames").read_bytes())
    data[HEADER] ^= 1
    (tmp_path / "1.frames").write_bytes(data)
    with pytest.raises(JournalDamagedError, match="ALARM") as caught:
        read(tmp_path / "1.frames")
    assert caught.value.hint
    assert (tmp_path / "1.frames").read_bytes() == data  # nothing was repaired


def test_zeros_that_a_torn_write_left_are_cut(tmp_path: Path) -> None:
    write(tmp_path / "1.frames", [b"one"])
    with open(tmp_path / "1.frames", "ab") as file:
        file.write(bytes(4096))
    assert read(tmp_path / "1.frames") == [b"one"]


def test_a_lost_sector_in_front_of_a_later_group_is_damage(tmp_path: Path) -> None:
    write(tmp_path / "1.frames", [b"one"], [b"x" * 2000], [b"three"])
    data = (tmp_path / "1.frames").read_bytes()
    (tmp_path / "1.frames").write_bytes(data[:SECTOR] + bytes(SECTOR) + data[2 * SECTOR :])
    with pytest.raises(JournalDamagedError):
        read(tmp_path / "1.frames")


@pytest.mark.parametrize("left", [1, HEADER, HEADER + 2])
def test_a_segment_is_there_with_its_first_frames_or_was_changed(tmp_path: Path, left: int) -> None:
    write(tmp_path / "1.frames", [b"start"])
    data = (tmp_path / "1.frames").read_bytes()[:left]
    (tmp_path / "1.frames").write_bytes(data)
    with pytest.raises(JournalDamagedError):
        read(tmp_path / "1.frames")
    assert (tmp_path / "1.frames").read_bytes() == data


def test_a_torn_group_in_front_of_another_segment_is_damage(tmp_path: Path) -> None:
    write(tmp_path / "1.frames", [b"one"], [b"two"])
    data = (tmp_path / "1.frames").read_bytes()
    assert read(tmp_path / "1.frames", last=False) == [b"one", b"two"]
    (tmp_path / "1.frames").write_bytes(data[:-1])
    with pytest.raises(JournalDamagedError):
        read(tmp_path / "1.frames", last=False)
    assert read(tmp_path / "1.frames", last=True) == [b"one"]


def test_a_full_disk_leaves_it_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.frames"
    segment, _ = Segment.make(path, [b"one"])

    def half(data: bytes) -> None:
        with open(path, "ab") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "no space")

    with monkeypatch.context() as full:
        full.setattr(segment, "_write", half)
        with pytest.raises(JournalUnavailableError):
            segment.append([b"two"])
    segment.append([b"three"])
    segment.close()
    assert read(path) == [b"one", b"three"]


def test_a_segment_that_cannot_be_made_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Segment, _data: bytes) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as full:
        full.setattr(Segment, "_write", fail)
        with pytest.raises(JournalUnavailableError):
            Segment.make(tmp_path / "1.frames", [b"one"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HostError):
        Segment(tmp_path / "1.frames")

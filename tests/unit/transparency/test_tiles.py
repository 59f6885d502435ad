"""The tree as files: the same roots and proofs as the definition, and nothing lost by stopping anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transparency_world import Tree, entries, mth

from appliance.core.errors import HostError
from appliance.transparency import tiles as module
from appliance.transparency.merkle import inclusion_proof, leaf_hash, root, verify_inclusion
from appliance.transparency.tiles import Tiles, tile_path, tile_paths


def filled(folder: Path, count: int, size: int = 0) -> Tiles:
    tiles = Tiles(folder, size)
    tiles.append(map(leaf_hash, entries(count)[size:]))
    return tiles


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (2, 1_234_067, 256, "tile/2/x001/x234/067"),  # the example of the specification
        (1, 999, 17, "tile/1/999.p/17"),
        (0, 1000, 1, "tile/0/x001/000.p/1"),
    ],
)
def test_tiles_lie_where_the_specification_says(level: int, index: int, width: int, path: str) -> None:
    assert tile_path(level, index, width) == path


def test_a_tree_of_70000_has_the_tiles_of_the_specifications_example(tmp_path: Path) -> None:
    filled(tmp_path, 70_000).publish()
    files = {
        str(path.relative_to(tmp_path)): path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()
    }
    assert sum(path.startswith("tile/0/") and ".p/" not in path for path in files) == 273
    assert files["tile/0/273.p/112"] == 112 * 32
    assert files["tile/1/000"] == 256 * 32
    assert files["tile/1/001.p/17"] == 17 * 32
    assert files["tile/2/000.p/1"] == 32
    assert len(files) == 277


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 511, 512, 700, 66_000])
def test_roots_and_proofs_are_those_of_the_definition(tmp_path: Path, count: int) -> None:
    tiles, made = filled(tmp_path, count), entries(count)
    assert tiles.size == count
    for size in {count, count // 2, min(count, 257)}:
        assert root(tiles, size) == mth(made[:size])
    for index in {0, count // 3, count - 1} if count else ():
        verify_inclusion(
            leaf_hash(made[index]), index, count, inclusion_proof(tiles, index, count), mth(made)
        )


@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 65_536, 65_793])
def test_a_log_goes_on_from_what_it_published_whatever_it_wrote_beyond(tmp_path: Path, size: int) -> None:
    filled(tmp_path, size).publish()
    filled(tmp_path, size + 600, size)  # never published
    tiles = filled(tmp_path, size + 600, size)
    tiles.publish()
    assert root(tiles, size + 600) == mth(entries(size + 600))
    assert root(Tiles(tmp_path, size), size) == mth(entries(size))  # the earlier size is still there


def test_partial_tiles_go_once_their_tile_is_full_and_their_sizes_can_still_be_read(tmp_path: Path) -> None:
    tiles = Tiles(tmp_path, 0)
    for size in range(1, 300):
        tiles.append([leaf_hash(entries(size)[-1])])
        tiles.publish()
    assert not (tmp_path / "tile/0/000.p").exists()
    assert len(list((tmp_path / "tile/0/001.p").iterdir())) == 43
    for size in (1, 100, 255, 256, 299):
        assert root(Tiles(tmp_path, size), size) == mth(entries(size))


@pytest.mark.parametrize(
    ("old", "new"), [(0, 0), (0, 1), (0, 300), (255, 256), (256, 257), (300, 300), (5, 66_000)]
)
def test_the_tiles_between_two_sizes_are_those_that_a_reader_of_the_later_lacks(
    tmp_path: Path, old: int, new: int
) -> None:
    filled(tmp_path, old).publish()
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    filled(tmp_path, new, old).publish()
    after = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(tile_path(*tile)) for tile in tile_paths(old, new)} == after - before


def test_proofs_do_not_need_the_entries(tmp_path: Path) -> None:
    filled(tmp_path, 3000).publish()
    assert not any(b"entry" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    proof = inclusion_proof(Tiles(tmp_path, 3000), 1234, 3000)
    assert proof == inclusion_proof(Tree(entries(3000)), 1234, 3000)


def test_everybody_may_read_the_tiles_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        filled(tmp_path / "log", 300).publish()
    finally:
        os.umask(mask)
    for path in (tmp_path / "log").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_a_tile_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    filled(tmp_path, 300).publish()
    full = tmp_path / "tile/0/000"
    full.write_bytes(full.read_bytes()[:-1])
    with pytest.raises(HostError, match="tile/0/000 is damaged"):
        Tiles(tmp_path, 300).subtree(0, 7)
    (tmp_path / "tile/0/001.p/44").unlink()
    with pytest.raises(HostError, match=r"tile/0/001\.p/44 cannot be read"):
        Tiles(tmp_path, 300)


def test_names_are_durable_when_a_size_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = module._sync_folder

    def sync(folder: Path) -> None:
        synced.append(folder)
        real(folder)

    monkeypatch.setattr(module, "_sync_folder", sync)
    filled(tmp_path, 300).publish()
    named = {path.parent for path in tmp_path.rglob("*")}
    assert set(synced) == named


def test_a_disk_that_is_full_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="cannot be written") as caught:
        filled(tmp_path, 256)
    assert caught.value.hint

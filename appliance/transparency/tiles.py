"""The tree as files: tiles of 256 hashes, eight levels of the tree each (c2sp.org/tlog-tiles).

Tile n of level l holds the hashes of 256 complete subtrees of 256^l entries each; the levels between are computed. Full tiles never
change. Until the last one of each level is full, a partial tile is kept for every published size. Entries are not among the files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from appliance.core.errors import HostError
from appliance.core.storage import sync_folder
from appliance.transparency.merkle import HASH_BYTES, node_hash

_HEIGHT: Final = 8
WIDTH: Final = 1 << _HEIGHT
CHECKPOINT: Final = "checkpoint"
RESTORE: Final = "restore it from a backup"
_CACHED_TILES: Final = 1024  # 8 MiB


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Return a tile's path below the log's folder.

    Args:
        level: From 0.
        index: In its level.
        width: Hashes in it, 1 to 256; a tile with fewer than 256 is partial.
    """
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[place : place + 3] for place in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + ("" if width == WIDTH else f".p/{width}")


Load = Callable[[str], bytes | None]


class TileReader:
    """The tree of one size, read from tiles.

    Args:
        load: Returns what is under a tile's path, None if nothing is.
        size: Entries.
        hint: What to do where a tile is missing or damaged.

    Raises:
        HostError: If a tile of this size is missing or has another length.
    """

    def __init__(self, load: Load, size: int, hint: str = RESTORE) -> None:
        self._load = load
        self._hint = hint
        self._tails = [self._read_tail(level, size) for level in range(_levels(size))]
        self._full = lru_cache(_CACHED_TILES)(self._read_full)

    @property
    def size(self) -> int:
        """Entries in the tree."""
        return sum(len(tail) // HASH_BYTES * WIDTH**level for level, tail in enumerate(self._tails))

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree, as `merkle.Subtrees`."""
        tile_level, height = divmod(level, _HEIGHT)
        first = index << height
        tile, place = divmod(first, WIDTH)
        hashes = self._tile(tile_level, tile)[place * HASH_BYTES : (place + (1 << height)) * HASH_BYTES]
        return _fold(hashes)

    def _index_of_tail(self, level: int) -> int:
        """Return the index of the tile that a level's tail belongs to: as many as the levels above hold are full."""
        above = self._tails[level + 1 :]
        return sum(len(tail) // HASH_BYTES * WIDTH**place for place, tail in enumerate(above))

    def _tile(self, level: int, index: int) -> bytes:
        return bytes(self._tails[level]) if index == self._index_of_tail(level) else self._full(level, index)

    def _read_full(self, level: int, index: int) -> bytes:
        return self._read(level, index, WIDTH)

    def _read_tail(self, level: int, size: int) -> bytearray:
        width = size // WIDTH**level % WIDTH
        return bytearray(self._read(level, size // WIDTH ** (level + 1), width) if width else b"")

    def _read(self, level: int, index: int, width: int) -> bytes:
        path = tile_path(level, index, width)
        data, expected = self._load(path), width
        if data is None and width < WIDTH:  # partial ones go once their tile is full
            data, expected = self._load(tile_path(level, index)), WIDTH
        if data is None:
            raise HostError(f"the log's tile {path} cannot be read", hint=self._hint)
        if len(data) != expected * HASH_BYTES:
            raise HostError(f"the log's tile {path} is damaged", hint=self._hint)
        return data[: width * HASH_BYTES]


class Tiles(TileReader):
    """The tree of one log, on disk. One writer; it may be read while it is written.

    Args:
        folder: Of the log.
        size: Entries that were published last; hashes behind them are appended again.

    Raises:
        HostError: If a tile of this size is missing or has another length.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._fresh: set[Path] = set()  # folders with names that are not durable yet
        self._grown: list[Path] = []  # folders of partial tiles whose tile is full
        super().__init__(lambda path: load_tile(folder, path), size)

    def append(self, leaves: Iterable[bytes]) -> None:
        """Add the hashes of entries. They are durable once `publish` has returned.

        Raises:
            HostError: If a full tile cannot be written; the object is of no use then.
        """
        for leaf in leaves:
            self._push(0, leaf)

    def publish(self) -> None:
        """Write the partial tiles of this size and make everything durable; partial ones of full tiles go.

        Raises:
            HostError: If that fails.
        """
        size = self.size
        for level, tail in enumerate(self._tails):
            if tail:
                index = size // WIDTH ** (level + 1)
                self._write(tile_path(level, index, len(tail) // HASH_BYTES), bytes(tail))
        for folder in sorted(self._fresh, reverse=True):
            _sync_folder(folder)
        self._fresh.clear()
        for partial in self._grown:
            shutil.rmtree(partial, ignore_errors=True)
        self._grown.clear()

    def write_checkpoint(self, note: bytes) -> None:
        """Write the signed checkpoint of what was published, beside the tiles.

        Raises:
            HostError: If that fails.
        """
        self._write(CHECKPOINT, note)
        _sync_folder(self._folder)

    def _push(self, level: int, hash_: bytes) -> None:
        if level == len(self._tails):
            self._tails.append(bytearray())
        tail = self._tails[level]
        tail += hash_
        if len(tail) == WIDTH * HASH_BYTES:
            index = self._index_of_tail(level)
            self._write(tile_path(level, index), bytes(tail))
            self._grown.append(self._folder / f"{tile_path(level, index)}.p")
            above = _fold(tail)
            self._tails[level] = bytearray()
            self._push(level + 1, above)

    def _write(self, path: str, data: bytes) -> None:
        """Write a file in one step, its bytes durable before its name."""
        place = self._folder / path
        beside = place.with_name(f"{place.name}.new")
        try:
            self._make_folders(place.parent)
            with beside.open("wb") as file:
                os.fchmod(file.fileno(), 0o644)  # hashes are for everybody, whatever the umask
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
        except OSError as error:
            raise HostError(f"the log's {path} cannot be written", hint="free disk space") from error
        self._fresh.add(place.parent)

    def _make_folders(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folders(folder.parent)
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
            self._fresh.add(folder.parent)


def load_tile(folder: Path, path: str) -> bytes | None:
    """Return a file of a log's folder, None if it is not there.

    Raises:
        HostError: If it cannot be read.
    """
    try:
        return (folder / path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"the log's {path} cannot be read", hint=RESTORE) from error


def tile_paths(old: int, new: int) -> Iterator[tuple[int, int, int]]:
    """Yield level, index and width of the tiles that a tree of `new` entries has and one of `old` entries has not."""
    for level in range(_levels(new)):
        first = old // WIDTH ** (level + 1)
        full, width = new // WIDTH ** (level + 1), new // WIDTH**level % WIDTH
        yield from ((level, index, WIDTH) for index in range(first, full))
        if width and (old // WIDTH**level) != (new // WIDTH**level):
            yield level, full, width


def read_checkpoint(folder: Path) -> bytes:
    """Return the last checkpoint that was written beside a log's tiles, nothing if there is none.

    Raises:
        HostError: If it cannot be read.
    """
    return load_tile(folder, CHECKPOINT) or b""


def _levels(size: int) -> int:
    """Return how many levels of tiles a tree of this size has."""
    levels = 0
    while size:
        levels, size = levels + 1, size // WIDTH
    return levels


def _fold(hashes: bytes | bytearray) -> bytes:
    """Return the root over so many hashes, a power of two, side by side."""
    row = [bytes(hashes[place : place + HASH_BYTES]) for place in range(0, len(hashes), HASH_BYTES)]
    while len(row) > 1:
        row = [node_hash(row[place], row[place + 1]) for place in range(0, len(row), 2)]
    return row[0]


def _sync_folder(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as error:
        raise HostError(f"{folder} cannot be made durable", hint="see the disk") from error

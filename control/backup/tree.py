"""Checks a log's tiles, all of them, against a head that was signed."""

from __future__ import annotations

from typing import Final

from appliance.core.errors import HostError
from appliance.transparency import merkle
from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.merkle import node_hash
from appliance.transparency.tiles import RESTORE, WIDTH, Load, TileReader, tile_paths

_HEIGHT: Final = 8  # levels of the tree in one tile


def verify_tree(load: Load, head: Checkpoint) -> TileReader:
    """Return the tree if every tile of it is what the head's root says.

    Args:
        load: Returns what is under a tile's path.
        head: Size and root.

    Raises:
        HostError: If a tile is missing or another one.
    """
    tree = TileReader(load, head.size)
    if merkle.root(tree, head.size) != head.root:
        raise HostError("ALARM: the log's tiles are not the tree that was signed", hint=RESTORE)
    # The root speaks for the highest hashes alone; the hash of each full tile is in the tile above it.
    for level, index, width in tile_paths(0, head.size):
        if width < WIDTH:
            continue
        bits = _HEIGHT * (level + 1)
        left, right = (tree.subtree(bits - 1, 2 * index + half) for half in (0, 1))
        if node_hash(left, right) != tree.subtree(bits, index):
            raise HostError("ALARM: the log's tiles are not the tree that was signed", hint=RESTORE)
    return tree

"""Publishes the log of receipts on a node: its tiles and last head, and to its notary where each of its receipts is.

Entries are never among what is sent, so no client learns of another's; hashes and sizes are public to all clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from appliance.core.errors import HostError
from appliance.core.names import encode_base64
from appliance.transparency.tiles import CHECKPOINT, RESTORE, load_tile, tile_path, tile_paths
from control.audit.models import ReceiptRecord
from control.fleet.models import Node
from control.transparency.models import CheckpointRecord
from provisioning.node import NodeClient

TILES: Final = 128  # in one request: 1 MiB of hashes
PLACES: Final = 1000


def publish_log(node: Node, client: NodeClient, folder: Path) -> None:
    """Send what the node lacks of the log, and the places of its receipts.

    Args:
        node: The node.
        client: Speaks to it.
        folder: Of the log.

    Raises:
        HostError: If a tile cannot be read here.
    """
    last = CheckpointRecord.settled_last()
    if last is None:
        return
    published = client.publish({}, "")  # nothing sent: only asks
    if published < last.size:
        tiles = tile_paths(0 if _is_of_another(client, last.note) else published, last.size)
        while batch := dict(_texts(folder, islice(tiles, TILES))):
            client.publish(batch, "")
        client.publish({}, last.note)
    _send_places(node, client, last.size)


def _is_of_another(client: NodeClient, note: str) -> bool:
    """Whether a node still publishes the log before this one (`appliance control log succeed`): then it has no tile of this one."""
    shown = client.published(CHECKPOINT)
    return shown is not None and shown.split(b"\n")[0] != note.encode("utf-8").split(b"\n")[0]


def _texts(folder: Path, tiles: Iterator[tuple[int, int, int]]) -> Iterator[tuple[str, str]]:
    for level, index, width in tiles:
        path = tile_path(level, index, width)
        data = load_tile(folder, path)
        if data is None:
            raise HostError(f"the log's tile {path} cannot be read", hint=RESTORE)
        yield path, encode_base64(data)


def _send_places(node: Node, client: NodeClient, size: int) -> None:
    """Send the places that the node's notary does not know yet, in their order."""
    placed = client.places([])
    while True:
        rows = (
            ReceiptRecord.objects.filter(node=node, place__gte=placed, place__lt=size)
            .order_by("place")
            .only("receipt_id", "place")
        )
        piece = [(row.receipt_id, row.place) for row in rows[:PLACES] if row.place is not None]
        if not piece:
            return
        placed = client.places(piece)
        if placed <= piece[-1][1]:
            return  # it could not keep them; the next pass tries again

"""The log of receipts as this node publishes it: tiles of hashes and the last checkpoint, for NGINX and the notary to read.

Everything here is public to clients and signed by control, so the agent checks form and length and leaves truth to whoever reads it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from appliance.core.errors import HostError, RefusedError
from appliance.core.names import decode_base64
from appliance.core.storage import write_atomic
from appliance.transparency.checkpoint import Checkpoint
from appliance.transparency.note import Note
from appliance.transparency.tiles import CHECKPOINT, load_tile, read_checkpoint

MAX_FILES = 256
_HASH_BYTES, _WIDTH = 32, 256
_TILE = re.compile(
    r"tile/(0|[1-7])/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/(?P<width>[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
)


class PublishedLog:
    """The folder log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self) -> int:
        """Return the size of the tree that is published, 0 if there is none.

        Raises:
            HostError: If the checkpoint cannot be read.
        """
        note = read_checkpoint(self._folder)
        return Checkpoint.parse(Note.parse(note).text).size if note else 0

    def publish(self, files: Mapping[str, str], checkpoint: str) -> int:
        """Take tiles, and then the checkpoint of a tree whose tiles are all there; return the size that is published.

        Args:
            files: Tiles, path to base64.
            checkpoint: The signed note; empty while more tiles are to come.

        Raises:
            RefusedError: If a path, a tile or the checkpoint has not the form of one, or the tree would shrink.
            HostError: If a file cannot be written.
        """
        tiles = {path: _tile(path, text) for path, text in files.items()}
        size = Checkpoint.parse(Note.parse(checkpoint.encode("utf-8")).text).size if checkpoint else None
        published = self.size()
        if size is not None and size < published:
            raise RefusedError("the published log is larger", field="checkpoint")
        try:
            for path, data in tiles.items():
                self._write(path, data)
            if size is not None:
                self._write(CHECKPOINT, checkpoint.encode("utf-8"))
        except OSError as error:
            raise HostError("the log cannot be written", hint="free disk space on the node") from error
        return published if size is None else size

    def read(self, path: str) -> bytes | None:
        """Return a tile or the checkpoint as it is published, None if it is not there.

        Raises:
            RefusedError: If the path is none of them.
            HostError: If it cannot be read.
        """
        if path != CHECKPOINT and _TILE.fullmatch(path) is None:
            raise RefusedError("not the path of a tile", field="path")
        return load_tile(self._folder, path)

    def _write(self, path: str, data: bytes) -> None:
        place = self._folder / path
        for folder in [*reversed(place.relative_to(self._folder).parents)]:
            (self._folder / folder).mkdir(exist_ok=True)
            (self._folder / folder).chmod(0o755)  # hashes are for everybody, whatever the umask
        write_atomic(place, data, 0o644)  # what is lost is sent again
        if path != CHECKPOINT and ".p/" not in path:
            shutil.rmtree(f"{place}.p", ignore_errors=True)


def _tile(path: str, text: str) -> bytes:
    found = _TILE.fullmatch(path)
    if found is None:
        raise RefusedError("not the path of a tile", field="files")
    try:
        data = decode_base64(text)
    except ValueError as error:
        raise RefusedError("not base64", field="files") from error
    if len(data) != int(found["width"] or _WIDTH) * _HASH_BYTES:
        raise RefusedError("not as many hashes as its path says", field="files")
    return data

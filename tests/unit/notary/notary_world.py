"""A notary in a temporary folder, and a cell's side of its protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.core.node import NodePaths

CLIENTS = [{"name": "a", "pseudonym": "a" * 64}, {"name": "b", "pseudonym": "b" * 64}]
OPENING = {
    "session": "5" * 32,
    "models": ["6" * 64],
    "runtime": {"appliance": "0.1.0", "llama_cpp": "7" * 64, "generation": 3},
    "confinement": {
        "landlock_abi": 7,
        "seccomp": True,
        "network": "namespace",
        "core_dumps": False,
        "dumpable": False,
        "swap": False,
    },
}
DRAFT = {
    "end": "one_shot",
    "requests": 1,
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "retrieved_chunks": 0,
    "corpora": [],
    "erase": {"bytes": 4096, "verified": True, "text": "at_exit"},
}


class Line:
    """A connection that speaks JSON lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._ids = itertools.count(1)

    @classmethod
    async def to(cls, path: Path) -> Line:
        return cls(*await asyncio.open_unix_connection(path, limit=2**26))

    def send(self, op: str, **fields: Any) -> int:
        number = next(self._ids)
        self.writer.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
        return number

    async def reply(self) -> dict[str, Any]:
        return dict(json.loads(await self.reader.readline()))

    async def ask(self, op: str, **fields: Any) -> Any:
        """Return the result, or the error's code as text."""
        number = self.send(op, **fields)
        reply = await self.reply()
        assert reply["id"] == number
        return reply["result"] if reply["ok"] else reply["error"]["code"]

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Speaker:
    """The same without an event loop, for a notary in another process."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rwb")

    def ask(self, op: str, **fields: Any) -> Any:
        self._file.write(json.dumps({"id": 1, "op": op, **fields}).encode() + b"\n")
        self._file.flush()
        line = self._file.readline()
        if not line:
            raise ConnectionError
        reply = json.loads(line)
        return reply["result"] if reply["ok"] else reply["error"]["code"]

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._socket.close()


def paths_in(root: Path) -> NodePaths:
    paths = NodePaths(root)
    for folder in (paths.notary, paths.run):
        folder.mkdir(parents=True)
    return paths


def counter(paths: NodePaths, client: str = "a") -> Path:
    return paths.notary_clients / client / "notary.sock"


def segment(paths: NodePaths, number: int = 1) -> Path:
    return paths.notary / "journal" / f"{number:012}.frames"

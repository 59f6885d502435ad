"""The cell with the shipped model and the notary with a journal, as a node runs them, in one event loop of the test.

Nothing is simulated but the pace of an answer: for a client that goes away in the middle of one, the engine stops after a
number of tokens that the test knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from notary_world import CLIENTS, Line, counter, paths_in
from running_cell import CONFINEMENT, credentials, device, write_policy

from appliance.core.bundle import Limits
from appliance.core.receipt import SignedReceipt
from appliance.models import read_model
from inference.cell.main import CellInputs, run_cell
from inference.engine.engine import Engine, EngineFailed, Piece, Sampling
from inference.notary.notary import Notary

LIMITS = Limits(sessions=8, answer_tokens=64, cell_idle_s=600)


class PacedEngine:
    """The engine itself, but for answers that are to stay unfinished.

    Attributes:
        pause_after: Tokens after which an answer goes no further; None: it ends where it ends.
        paused: Set when one has come so far.
        said: The last conversation that was tokenised.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.pause_after: int | None = None
        self.paused = asyncio.Event()
        self.said: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def break_llama(self) -> None:
        """From now on llama.cpp refuses every batch."""

        def refuse(*_: Any, **__: Any) -> None:
            raise EngineFailed("llama.cpp refuses a batch")

        self._engine._worker._runner._context.decode = refuse  # type: ignore[method-assign]

    def prompt_tokens(self, messages: list[dict[str, Any]], tools: Any = ()) -> list[int]:
        self.said = messages
        return self._engine.prompt_tokens(messages, tools)

    def generate(
        self, stream: int, prompt: list[int], sampling: Sampling, **options: Any
    ) -> AsyncIterator[Piece]:
        if self.pause_after is None:
            return self._engine.generate(stream, prompt, sampling, **options)
        return self._unfinished(stream, prompt, replace(sampling, max_tokens=self.pause_after), options)

    async def _unfinished(
        self, stream: int, prompt: list[int], sampling: Sampling, options: dict[str, Any]
    ) -> AsyncIterator[Piece]:
        async for piece in self._engine.generate(stream, prompt, sampling, **options):
            yield replace(piece, finish=None)
        self.paused.set()
        await asyncio.Event().wait()


class Node:
    """A running node with one client, `acme`, and its devices `laptop` and `phone`.

    Attributes:
        engine: What answers.
        journal: Folder of the notary.
    """

    def __init__(self, root: Path) -> None:
        self.paths = paths_in(root / "node")
        self.journal = self.paths.notary
        self._policy = root / "policy.json"
        self._models = root / "models"
        self._http = root / "http.sock"
        self.engine: PacedEngine
        self._agent: Line
        self._wire: socket.socket
        self._listener: socket.socket
        self._stop: Callable[[], None]
        self._cell: asyncio.Task[int]
        self._seen = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, root: Path) -> AsyncIterator[Node]:
        """Start one, and end it afterwards."""
        node = cls(root)
        notary = await Notary.start("node-1", node.paths)
        node._agent = await Line.to(node.paths.notary_control)
        try:
            await node._agent.ask("clients", clients=CLIENTS)
            await node._start_cell()
            try:
                yield node
            finally:
                await node.stop_cell()
        finally:
            await node._agent.close()
            await notary.aclose()

    def allow(self, *devices: str) -> None:
        """Replace the policy, as the agent does when devices are added or cut off."""
        model = read_model()
        write_policy(
            self._policy, models=(model.manifest,), limits=LIMITS, devices=tuple(map(device, devices))
        )

    def client(self, device: str = "laptop") -> httpx.AsyncClient:
        """An HTTP client that speaks as a device."""
        # There is no TLS on this socket; a context for it would take longer to make than a session takes.
        transport = httpx.AsyncHTTPTransport(uds=str(self._http), verify=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://cell", headers=credentials(device), timeout=30
        )

    @contextlib.asynccontextmanager
    async def asking(self, path: str, body: dict[str, Any]) -> AsyncIterator[None]:
        """Send a request, and go away at the end without waiting for the answer."""
        content = json.dumps(body).encode()
        headers = credentials() | {"Host": "cell", "Content-Type": "application/json"}
        headers["Content-Length"] = str(len(content))
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        _, writer = await asyncio.open_unix_connection(self._http)
        writer.write("\r\n".join(lines).encode() + content)
        yield
        writer.close()
        await writer.wait_closed()

    def count(self, messages: list[dict[str, Any]]) -> int:
        """Return how many tokens a conversation has."""
        return len(self.engine.prompt_tokens(messages))

    async def receipts(self, count: int) -> list[SignedReceipt]:
        """Return the next receipts of the journal, once there are so many."""
        async with asyncio.timeout(30):
            while True:
                page = await self._agent.ask("export", after=self._seen, limit=count)
                if len(page["entries"]) == count:
                    self._seen = page["next"]
                    return [
                        SignedReceipt.parse_canonical(entry["signed"].encode()) for entry in page["entries"]
                    ]
                await asyncio.sleep(0.002)

    async def stop_cell(self) -> None:
        """Ask the cell to end, as SIGTERM does, and wait for it."""
        self._stop()
        await self._cell
        self._listener.close()

    def cut_notary_off(self) -> None:
        """Break the cell's connection to the notary, as its death does."""
        self._wire.shutdown(socket.SHUT_RDWR)

    async def _start_cell(self) -> None:
        self.allow("laptop", "phone")
        model = read_model()
        self._models.mkdir()
        shutil.copy(model.weights, self._models / model.manifest.files[0].sha256)
        self._wire = socket.socket(socket.AF_UNIX)
        self._wire.connect(str(counter(self.paths)))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._http))
        listener.listen()
        self._listener = listener
        inputs = CellInputs("acme", self._policy, self._models, listener, self._wire, CONFINEMENT, cores=2)
        ready = asyncio.Event()

        def on_ready(stop: Callable[[], None]) -> None:
            self._stop = stop
            ready.set()

        self._cell = asyncio.create_task(run_cell(inputs, self._load, on_ready))
        async with asyncio.timeout(60):
            await ready.wait()

    def _load(self, *args: Any, **options: Any) -> Any:
        self.engine = PacedEngine(Engine.load(*args, **options))
        return self.engine

"""A cell with a real uvicorn on a real Unix socket, run in a thread of the test."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx
from cell_notary_simulator import SimulatedNotary
from simulated_engine import SimulatedEngine

from appliance.core.bundle import Limits
from appliance.core.pin import Launch, Manifest, PinnedFile, Runtime
from appliance.core.policy import DeviceAccess, Policy
from appliance.core.receipt import Confinement
from inference.cell.main import CellInputs, run_cell

WEIGHTS = b"GGUF" + bytes(60)
TOKENS = {"laptop": "token-of-the-laptop", "phone": "token-of-the-phone"}
ADDRESSES = {"laptop": "10.8.0.2", "phone": "10.8.0.3"}
CONFINEMENT = Confinement(
    landlock_abi=7, seccomp=True, network="namespace", core_dumps=False, dumpable=False, swap=False
)


def manifest(**launch: int) -> Manifest:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    return Manifest(
        name="tiny",
        version="1.0",
        files=(PinnedFile(path="tiny.gguf", size=len(WEIGHTS), sha256=digest),),
        chat_template="{{ messages }}",
        stop=(),
        launch=Launch(**{"context_tokens": 256, "max_sessions": 4, **launch}),
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence="Apache-2.0",
        source="made for tests",
    )


def device(name: str) -> DeviceAccess:
    number = ADDRESSES[name].rpartition(".")[2]
    return DeviceAccess(
        name=name,
        address4=ADDRESSES[name],
        address6=f"fd00:8::{number}",
        token_sha256=hashlib.sha256(TOKENS[name].encode()).hexdigest(),
    )


def credentials(name: str = "laptop") -> dict[str, str]:
    return {"X-Peer-Address": ADDRESSES[name], "Authorization": f"Bearer {TOKENS[name]}"}


def write_policy(path: Path, **changes: Any) -> None:
    """Replace the policy file, as the agent does."""
    values: dict[str, Any] = {
        "client": "acme",
        "generation": 7,
        "revoked": False,
        "seats": 2,
        "limits": Limits(sessions=3, cell_idle_s=60, answer_tokens=64),
        "models": (manifest(),),
        "devices": (device("laptop"), device("phone")),
    }
    beside = path.with_suffix(".new")
    beside.write_bytes(Policy(**(values | changes)).canonical_bytes())
    beside.replace(path)


class RunningCell:
    """A cell of the client `acme` with the devices `laptop` and `phone`."""

    def __init__(self, folder: Path, **policy: Any) -> None:
        self.policy_file = folder / "policy.json"
        write_policy(self.policy_file, **policy)
        models = folder / "models"
        models.mkdir()
        (models / hashlib.sha256(WEIGHTS).hexdigest()).write_bytes(WEIGHTS)
        self.weights = next(models.iterdir())
        self.path = folder / "http.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.engine, self.notary = SimulatedEngine(), SimulatedNotary()
        self.exit_code: int | None = None
        self._inputs = CellInputs(
            client="acme",
            policy_file=self.policy_file,
            models=models,
            # The cell closes its descriptor of the socket; the launcher's stays open, as it would.
            listener=socket.socket(fileno=os.dup(self.listener.fileno())),
            notary=self.notary.near,
            confinement=CONFINEMENT,
            cores=4,
        )
        self._loaded = threading.Event()
        self._stop: Callable[[], object] = self._loaded.set
        self._thread = threading.Thread(target=self._run)

    def start(self) -> RunningCell:
        self._thread.start()
        return self

    def client(self, name: str = "laptop", **headers: str) -> httpx.Client:
        """An HTTP client that speaks as a device of `acme`."""
        transport = httpx.HTTPTransport(uds=str(self.path))
        return httpx.Client(
            transport=transport, base_url="http://cell", headers=credentials(name) | headers, timeout=10
        )

    def is_serving(self) -> bool:
        return self._loaded.is_set()

    def terminate(self) -> None:
        assert self._loaded.wait(5)
        self._stop()

    def await_exit(self, within_s: float = 5.0) -> int | None:
        self._thread.join(within_s)
        assert not self._thread.is_alive(), "the cell did not end"
        return self.exit_code

    def close(self) -> None:
        if self._thread.is_alive():
            self.terminate()
            self._thread.join(5)
        self.notary.close()
        self._inputs.listener.close()
        self.listener.close()

    def _run(self) -> None:
        async def run() -> int:
            loop = asyncio.get_running_loop()
            return await run_cell(self._inputs, self.engine.load, lambda stop: self._remember(loop, stop))

        self.exit_code = asyncio.run(run())

    def _remember(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        self._stop = partial(loop.call_soon_threadsafe, stop)
        self._loaded.set()


class StartCell(Protocol):
    def __call__(self, *, started: bool = True, **policy: Any) -> RunningCell: ...


def ask(content: str = "what is the answer", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}

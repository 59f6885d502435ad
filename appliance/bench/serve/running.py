"""Starts the servers of a plan, waits until they serve, and ends them: ours as cell processes, or llama-server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.bench.serve.client import Endpoint
from appliance.bench.serve.memory import peak_bytes
from appliance.bench.serve.plans import Example, Model, Ours, Peer, Plan, chat_fields
from appliance.bench.serve.process import await_path, await_ready, process
from appliance.core.bundle import Limits
from appliance.core.errors import HostError
from appliance.core.node import NodePaths
from appliance.core.policy import DeviceAccess, Policy
from inference.launcher.spawn import ENVIRONMENT

_ADDRESS4, _ADDRESS6 = "10.8.0.2", "fd00:8::2"
_MAX_CELLS: Final = 8
CELL: Final = (sys.executable, "-m", "appliance.bench.serve.cell_process")
"""The command that runs a cell."""


@dataclass(frozen=True)
class Servers:
    """What runs for one side of a case.

    Attributes:
        endpoints: Where it listens; several for several cells.
        pids: Processes that serve.
    """

    endpoints: tuple[Endpoint, ...]
    pids: tuple[int, ...]

    def peak_bytes(self) -> int:
        """Return the peak memory of all of them together."""
        return sum(peak_bytes(pid) for pid in self.pids)


class Bench:
    """Everything that outlives a single run: the scratch folder, the notary, where llama-server is.

    Args:
        scratch: Sockets, policies, logs; its path is short, since a Unix socket's is at most 107 bytes (unix(7)).
        notary: Root folder of the notary that signs for our cells.
        notary_pid: Its process.
        peer: Folder with llama-server, if it is needed.
        threads: Cores to use.
        cell: Command that runs a cell, given the SPEC of `cell_process`.
    """

    def __init__(
        self,
        scratch: Path,
        notary: Path,
        notary_pid: int,
        *,
        peer: Path | None,
        threads: int,
        cell: Sequence[str],
    ) -> None:
        self.notary_pid = notary_pid
        self._scratch = scratch
        self._notary = notary
        self._peer = peer
        self._threads = threads
        self._cell = cell

    @contextlib.asynccontextmanager
    async def run(self, plan: Plan, model: Model) -> AsyncIterator[Servers]:
        """Start what a plan says, and end it afterwards.

        Raises:
            HostError: If a server does not start; the hint holds the end of what it printed.
        """
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            with contextlib.ExitStack() as stack:
                if isinstance(plan, Ours):
                    servers = self._start_cells(plan, model, folder, stack)
                elif isinstance(plan, Peer):
                    servers = self._start_peer(plan, model, folder, stack)
                else:
                    servers = self._start_example(plan, model, folder, stack)
                path = "/health" if isinstance(plan, Peer) else "/v1/models"
                for endpoint, pid in zip(servers.endpoints, servers.pids, strict=True):
                    await await_ready(endpoint, path, pid, folder / "log")
                if isinstance(plan, Peer):
                    _verify_libraries(servers.pids[0])
                yield servers
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start_cells(self, plan: Ours, model: Model, folder: Path, stack: contextlib.ExitStack) -> Servers:
        token = secrets.token_urlsafe(32)
        manifest = plan.pin(model)
        _place_weights(model.path, folder / "models" / manifest.files[0].sha256)
        headers = {"X-Peer-Address": _ADDRESS4, "Authorization": f"Bearer {token}"}
        fields = chat_fields(plan, model)
        endpoints, pids = [], []
        for number in range(plan.cells):
            client = client_name(number)
            policy = folder / client / "policy.json"
            policy.parent.mkdir()
            policy.write_bytes(_policy(client, plan, model, token).canonical_bytes())
            listener = policy.parent / "http.sock"
            spec = {
                "client": client,
                "policy": str(policy),
                "models": str(folder / "models"),
                "listener": str(listener),
                "notary": str(NodePaths(self._notary).notary_clients / client / "notary.sock"),
                "cores": self._threads,
                "delay_ms": plan.delay_ms,
            }
            command = [*self._cell, json.dumps(spec)]
            pids.append(stack.enter_context(process(command, folder / "log", ENVIRONMENT)))
            endpoints.append(Endpoint(str(listener), headers, fields, sessions=True))
        return Servers(tuple(endpoints), tuple(pids))

    def _start_peer(self, plan: Peer, model: Model, folder: Path, stack: contextlib.ExitStack) -> Servers:
        template = folder / "template.jinja"
        template.write_text(model.manifest.chat_template, "utf-8")
        listener = folder / "http.sock"
        if self._peer is None:
            raise HostError("llama-server is needed and was not built")
        command = [str(self._peer / "llama-server"), "--model", str(model.path), "--host", str(listener)]
        command += ["--jinja", "--chat-template-file", str(template), *plan.arguments(self._threads)]
        # Not only the same source: the very library files that our cell loads.
        environment = {**os.environ, "LD_LIBRARY_PATH": str(library_folder())}
        pid = stack.enter_context(process(command, folder / "log", environment))
        return Servers((Endpoint(str(listener), fields=chat_fields(plan, model)),), (pid,))

    def _start_example(
        self, plan: Example, model: Model, folder: Path, stack: contextlib.ExitStack
    ) -> Servers:
        from provisioning.build_peer import find_example

        if self._peer is None:
            raise HostError("llama-server is needed and was not built")
        port = _free_port()
        config = folder / "example.json"
        config.write_text(json.dumps(plan.config(model, self._threads, port)), "utf-8")
        command = [sys.executable, str(find_example(self._peer)), "-C", str(config)]
        # It asks for llama.cpp's multimodal part, which our build leaves out and llama-server's has.
        environment = {
            **os.environ,
            "MTMD_CPP_LIB": str(self._peer),
            "LD_LIBRARY_PATH": str(library_folder()),
        }
        pid = stack.enter_context(process(command, folder / "log", environment))
        return Servers((Endpoint(("127.0.0.1", port), fields=chat_fields(plan, model)),), (pid,))


@contextlib.contextmanager
def bench(peer: Path | None, threads: int, *, cell: Sequence[str] = CELL) -> Iterator[Bench]:
    """Make a scratch folder and start a notary in it, as on a node; end and remove both afterwards.

    Args:
        peer: Folder with llama-server, if a plan needs it.
        threads: Cores to use.
        cell: Command that runs a cell, given the SPEC of `cell_process`.

    Raises:
        HostError: If the notary does not start.
    """
    from inference.notary.roster import Client, Roster, write_roster

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        root = Path(scratch) / "node"
        paths = NodePaths(root)
        paths.notary.mkdir(parents=True)
        names = [client_name(number) for number in range(_MAX_CELLS)]
        clients = [Client(name=name, pseudonym=hashlib.sha256(name.encode()).hexdigest()) for name in names]
        write_roster(paths.notary / "clients.json", Roster(clients=tuple(clients)))
        command = [sys.executable, "-m", "appliance", "notary", "--root", str(root), "--node", "bench"]
        log = Path(scratch) / "notary.log"
        with process(command, log) as pid:
            await_path(paths.notary_clients / names[-1] / "notary.sock", log)
            yield Bench(Path(scratch), root, pid, peer=peer, threads=threads, cell=cell)


def client_name(number: int) -> str:
    """Return the name of the client that the n-th cell is for."""
    return f"bench-{number}"


def library_folder() -> Path:
    """Return where llama.cpp's shared libraries are that our engine loads."""
    import llama_cpp

    return Path(llama_cpp.__file__).parent / "lib"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _policy(client: str, plan: Ours, model: Model, token: str) -> Policy:
    device = DeviceAccess(
        name="load",
        address4=_ADDRESS4,
        address6=_ADDRESS6,
        token_sha256=hashlib.sha256(token.encode("ascii")).hexdigest(),
    )
    return Policy(
        client=client,
        generation=1,
        revoked=False,
        seats=plan.cells,
        limits=Limits(
            sessions=plan.streams,
            cell_idle_s=86_400,
            answer_tokens=plan.context_tokens,
            guess_in_streams=plan.guess,
        ),
        models=(plan.pin(model),),
        devices=(device,),
    )


def _place_weights(weights: Path, place: Path) -> None:
    place.parent.mkdir()
    try:
        os.link(weights, place)
    except OSError:  # another file system
        shutil.copyfile(weights, place)


def _verify_libraries(pid: int) -> None:
    """Check that a server runs on the llama.cpp that our engine loads; return None or raise.

    Raises:
        HostError: If it runs on other library files: then kernels would be compared, not servers.
    """
    maps = Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines()
    folders = {
        Path(line.split()[-1]).parent for line in maps if "/libggml-cpu" in line or "/libllama.so" in line
    }
    if {folder.resolve() for folder in folders} != {library_folder().resolve()}:
        raise HostError("llama-server does not run on the libraries that our engine loads")

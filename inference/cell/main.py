"""Where a confined process becomes a cell. The confinement stub calls `serve`, or `serve_busy` without a seat.

| exit code | meaning |
|---|---|
| 0 | idle, drained, revoked, on a drained node, or another model is the client's first now |
| 11 | the model's file, bytes or runtime are not the pinned ones |
| 12 | the engine could not load the model, or its self-test failed |
| 13 | the engine gave up while it served |
| 14 | a session's memory could not be verified as erased |
| 15 | the connection to the notary ended |
| 16 | a fault of ours |

What is heavy is imported in the functions that need it: a process without a seat must answer at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.core.errors import PinError
from appliance.core.receipt import Confinement
from inference.cell.busy import answer_waiting, serve_busy
from inference.cell.errors import DRAINED_RETRY_AFTER_S, Refusal
from inference.cell.exits import Exit

if TYPE_CHECKING:
    from inference.cell.cell import Cell
    from inference.cell.engine_protocol import CellEngine, EngineLoader
    from inference.cell.notary import Notary
    from inference.cell.policy_file import PolicyFile

OnReady = Callable[[Callable[[], None]], None]

__all__ = ["CellInputs", "Exit", "run_cell", "serve", "serve_busy", "settle"]

_APOLOGY_S: Final = (
    2.0  # how long a cell that cannot serve (no model, revoked, drained) answers before it exits
)
_FLUSH_S: Final = 10  # for a slow reader to take the rest of its last answer
_STOP_FLUSH_S: Final = 1  # the same when the cell was told to stop


@dataclass(frozen=True)
class CellInputs:
    """What the confinement stub hands over.

    Attributes:
        client: Name of the client that this cell is for.
        policy_file: Its policy.
        models: Folder of model files, named by their SHA-256.
        listener: Inherited listening Unix socket.
        notary: Unix socket, connected to the notary before confinement.
        confinement: What the stub tried and found.
        cores: CPU cores of this node; its seats divide them.
    """

    client: str
    policy_file: Path
    models: Path
    listener: socket.socket
    notary: socket.socket
    confinement: Confinement
    cores: int


def serve(inputs: CellInputs) -> int:
    """Serve the client until the cell has to end; return the exit code."""
    logging.disable(logging.CRITICAL)  # there is nowhere to log, and nothing that may be said
    try:
        return asyncio.run(_serve(inputs))
    except Exception:  # noqa: BLE001 - the edge: a traceback would quote what a client sent
        return Exit.INTERNAL


async def _serve(inputs: CellInputs) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    from inference.engine.engine import Engine

    return await run_cell(inputs, Engine.load, settle)


def settle(drain: Callable[[], None]) -> None:
    """Make this process one that serves: SIGTERM drains it, and what it has loaded stays."""
    # Until now SIGTERM meant what the stub made of it: end at once, there was no session to end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain)
    # 75,000 objects stay for good; to look at all of them took 30 ms in which no token was sent.
    gc.collect()
    gc.freeze()


async def run_cell(inputs: CellInputs, load: EngineLoader, on_ready: OnReady) -> int:
    """Run one cell on the current event loop.

    Args:
        inputs: As `serve`.
        load: How the engine comes to be.
        on_ready: Called once everything is loaded, with a function that drains the cell.
    """
    from inference.cell.model import load_pinned
    from inference.cell.policy_file import ClientRevokedError, PolicyFile

    try:
        policy = PolicyFile(inputs.policy_file, inputs.client)
    except ClientRevokedError:
        await _apologise(inputs, Refusal("invalid_api_key"))
        return Exit.DONE
    if policy.current.draining:  # it would load a model for no session
        await _apologise(inputs, Refusal("node_drained", retry_after_s=DRAINED_RETRY_AFTER_S))
        return Exit.DONE
    verdict = Exit.DONE
    try:
        manifest = policy.current.models[0]
        threads = max(1, inputs.cores // policy.current.seats)
        engine = await load_pinned(inputs.models, manifest, load, threads=threads)
    except Exception as error:  # noqa: BLE001 - whatever the library raises, no model is served
        verdict = Exit.MODEL_REFUSED if isinstance(error, (PinError, IndexError)) else Exit.MODEL_FAILED
    if verdict is not Exit.DONE:
        await _apologise(inputs, Refusal("model_unavailable"))
        return verdict
    try:
        return await _run(inputs, policy, engine, on_ready)
    finally:
        await engine.aclose()


async def _run(inputs: CellInputs, policy: PolicyFile, engine: CellEngine, on_ready: OnReady) -> int:
    from inference.cell.api import build_api
    from inference.cell.gate import Gate
    from inference.cell.keeper import Keeper
    from inference.cell.notary import Notary
    from inference.cell.server import Server

    terminate = asyncio.Event()
    notary = await Notary.over(inputs.notary)
    try:
        cell = _assemble(inputs, policy, engine, notary)
        await _count_recent(cell)
        server = Server(Gate(cell, build_api(cell)))
        on_ready(terminate.set)
        serving = asyncio.create_task(server.serve_on(inputs.listener))
        verdict = await Keeper(cell, terminate, server.stop_accepting).run()
        server.finish(within_s=_STOP_FLUSH_S if cell.life.draining else _FLUSH_S)
        await serving
        return verdict
    finally:
        await notary.aclose()


def _assemble(inputs: CellInputs, policy: PolicyFile, engine: CellEngine, notary: Notary) -> Cell:
    from inference.cell.admission import Admission
    from inference.cell.cell import Cell
    from inference.cell.completion import ModelName
    from inference.cell.life import Life
    from inference.cell.rates import Rates
    from inference.cell.sessions import Sessions

    model = ModelName.of(policy.current.models[0])
    return Cell(
        policy=policy,
        admission=Admission(policy.current),
        life=Life(),
        engine=engine,
        model=model,
        notary=notary,
        rates=Rates(policy.current.limits),
        sessions=Sessions(engine, notary, policy, model.pin, inputs.confinement),
    )


async def _count_recent(cell: Cell) -> None:
    """Count what the client used before: a cell that ends after each request must not begin each minute anew."""
    from inference.cell.notary import NotaryUnavailableError

    limits = cell.policy.current.limits
    if limits.requests_per_minute is None and limits.tokens_per_minute is None:
        return
    with contextlib.suppress(NotaryUnavailableError):  # the keeper ends a cell that has lost its notary
        cell.rates.count(await cell.notary.recent())


async def _apologise(inputs: CellInputs, refusal: Refusal) -> None:
    await asyncio.to_thread(answer_waiting, inputs.listener, refusal, seconds=_APOLOGY_S)

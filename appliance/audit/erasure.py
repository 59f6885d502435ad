"""The promise "Erased", for every way in which a session ends.

A cell is started as on a node, one conversation is had with it, and it is frozen (SIGSTOP) while it is looked into from
outside. What is looked for was computed apart (`traces`). Each trace must be found while the session lives, which is the
positive control, and be gone when it has ended while the cell lives on. Text is counted then, and bounded once the cell
has exited: Python's own strings go with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from appliance.audit.memory import count_in, forms, make_canary, read_memory
from appliance.audit.traces import KV, LOGITS, Messages, Traces, compute
from appliance.bench.report import Check, Report
from appliance.bench.serve.client import BenchPeerError, Endpoint, exchange
from appliance.bench.serve.plans import Model, Ours
from appliance.bench.serve.process import is_alive
from appliance.bench.serve.running import CELL, Bench, bench
from appliance.core.errors import HostError
from appliance.models import PinnedModel

Progress = Callable[[str], None]
Needles = dict[str, list[bytes]]

_PLAN: Final = Ours(streams=2, context_tokens=2048)
_PROMPT_TOKENS, _LONG_PROMPT_TOKENS = 120, 1700
_ANSWER_TOKENS, _LONG_ANSWER_TOKENS = 32, 900
_EVENTS: Final = 4  # pieces of an answer after which it counts as under way
_TTL_S: Final = 3
_SETTLE_S: Final = 3.0  # for an ended session to be erased, and the buffers behind it
_EXIT_S: Final = 15.0  # answers in progress may end first
_TRIES: Final = 40  # to freeze the cell in the middle of a prompt


@dataclass
class Seen:
    """What was found of one way to end.

    Attributes:
        before: By kind of trace, how many were looked for and how many found while the session lived.
        after: By kind, how many were still found when it had ended; empty if the cell ended with it.
        text: Copies of the text in the living cell after the session.
        ends_cell: The cell has to end with the session.
        exit_s: Seconds until it did, once it has.
    """

    before: dict[str, tuple[int, int]] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    text: int = 0
    ends_cell: bool = False
    exit_s: float = 0.0

    @property
    def control_ok(self) -> bool:
        """Whether there was something to be found. Rows may differ in a last bit between two batch shapes."""
        return bool(self.before) and all(2 * found >= wanted for wanted, found in self.before.values())


@dataclass(frozen=True)
class Sought:
    """What is said to a cell and then looked for in it.

    Attributes:
        canary: A word of both conversations.
        short: A prompt of one batch.
        long: A prompt of several.
    """

    canary: str
    short: Traces
    long: Traces


class Cell:
    """A cell under audit, and the conversation that is had with it.

    Attributes:
        seen: What was found so far.
        sought: What it is told.
        notary_pid: Process of its notary.
    """

    def __init__(self, endpoint: Endpoint, pid: int, notary_pid: int, sought: Sought) -> None:
        self.seen = Seen()
        self.sought = sought
        self.notary_pid = notary_pid
        self._endpoint = endpoint
        self._pid = pid
        self._needles: Needles = {}

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request and return its JSON."""
        return json.loads((await exchange(self._endpoint, method, path, body=body)).body)

    async def chat(self, messages: Messages, max_tokens: int, **options: Any) -> None:
        """Ask, and wait for the whole answer."""
        # As a stream, whose tokens are not guessed: what is guessed in one batch depends on measured speed, and keys and
        # values in their last bits on the batch.
        fields = {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        body = {**fields, **self._endpoint.fields, **options.pop("fields", {})}
        await exchange(self._endpoint, "POST", "/v1/chat/completions", body=body, **options)

    async def kept(self, **fields: Any) -> str:
        """Open a session, have the short conversation in it, and return its path."""
        session = (await self.call("POST", "/v1/sessions", fields))["id"]
        await self.chat(self.sought.short.messages, _ANSWER_TOKENS, headers={"X-Session-Id": session})
        return f"/v1/sessions/{session}"

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[asyncio.Task[None]]:
        """Have a one-shot session answer at length; the block runs while it does, and may cancel the task."""
        under_way = asyncio.Event()

        def watch(events: int) -> None:
            if events >= _EVENTS:
                under_way.set()

        asked = self.chat(self.sought.short.messages, _LONG_ANSWER_TOKENS, watch=watch)
        task = asyncio.create_task(asked)
        started = asyncio.create_task(under_way.wait())
        await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            started.cancel()
            raise HostError(
                "the model's answer was refused, or over before it could be looked at",
                hint="audit another model",
            )
        try:
            yield task
        finally:
            self.resume()
            with contextlib.suppress(asyncio.CancelledError, BenchPeerError):
                await task

    def look(self, needles: Needles) -> dict[str, int]:
        """Freeze the cell and return by kind how many of the needles it holds. It stays frozen."""
        self.signal(signal.SIGSTOP)
        counts = count_in(
            read_memory(self._pid, writable=True), [n for kind in needles.values() for n in kind]
        )
        return {kind: sum(counts[needle] > 0 for needle in wanted) for kind, wanted in needles.items()}

    def observe(self, needles: Needles) -> None:
        """Look, and remember what was found. The cell stays frozen."""
        self._needles = needles
        self.seen.before = {kind: (len(needles[kind]), found) for kind, found in self.look(needles).items()}

    def resume(self) -> None:
        """Let a frozen cell go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    async def settle(self, needles: Needles) -> dict[str, int]:
        """Wait until nothing of the needles is found, or long enough; return what is found."""
        end = time.monotonic() + _SETTLE_S
        while True:
            await asyncio.sleep(0.2)
            found = self.look(needles)
            self.resume()
            if not any(found.values()) or time.monotonic() > end:
                return found

    async def conclude(self) -> None:
        """The session has ended: look again, if the cell has not ended with it."""
        if self.seen.ends_cell:
            began = time.monotonic()
            while is_alive(self._pid) and self.seen.exit_s <= _EXIT_S:
                await asyncio.sleep(0.02)
                self.seen.exit_s = time.monotonic() - began
            return
        self.seen.after = await self.settle(self._needles)
        self.seen.text = sum(count_in(read_memory(self._pid), forms(self.sought.canary)).values())


async def _deleted(cell: Cell) -> None:
    path = await cell.kept()
    cell.observe({**cell.sought.short.early, LOGITS: cell.sought.short.logits})
    cell.resume()
    await cell.call("DELETE", path)


async def _expired(cell: Cell) -> None:
    path = await cell.kept(ttl_s=_TTL_S)
    cell.observe({**cell.sought.short.early, LOGITS: cell.sought.short.logits})
    cell.resume()
    with contextlib.suppress(BenchPeerError):  # it is not found any more
        while True:
            await cell.call("GET", path)
            await asyncio.sleep(0.1)


async def _one_shot(cell: Cell) -> None:
    async with cell.answering():
        cell.observe(cell.sought.short.early)


async def _gone_while_decoding(cell: Cell) -> None:
    async with cell.answering() as task:
        cell.observe(cell.sought.short.early)
        task.cancel()


async def _gone_while_prefilling(cell: Cell) -> None:
    early, late = cell.sought.long.early, {KV: cell.sought.long.late[KV]}
    delay = 0.01
    for _ in range(_TRIES):
        task = asyncio.create_task(cell.chat(cell.sought.long.messages, 1))
        await asyncio.sleep(delay)
        cell.observe(early)
        caught, passed = cell.seen.control_ok, cell.look(late)[KV] > 0
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        cell.resume()
        if caught and not passed:
            return
        await cell.settle(early)
        delay = delay * 0.7 if passed else delay * 1.2
    raise HostError(
        "the cell could not be frozen in the middle of a prompt", hint="try again, or audit a larger model"
    )


async def _drained(cell: Cell) -> None:
    async with cell.answering():
        cell.observe(cell.sought.short.early)
        cell.signal(signal.SIGTERM)
    cell.seen.ends_cell = True


async def _failed(cell: Cell) -> None:
    async with cell.answering():
        cell.observe(cell.sought.short.early)
        os.kill(cell.notary_pid, signal.SIGKILL)
    cell.seen.ends_cell = True


WAYS: Final[dict[str, Callable[[Cell], Awaitable[None]]]] = {
    "deleted": _deleted,
    "expired": _expired,
    "one-shot": _one_shot,
    "disconnected while decoding": _gone_while_decoding,
    "disconnected while prefilling": _gone_while_prefilling,
    "drained while decoding": _drained,
    "failed while decoding": _failed,
}
"""How a session ends; the last two end the cell as well."""


def audit_erasure(
    model: PinnedModel, report: Progress, *, ways: Sequence[str] = tuple(WAYS), cell: Sequence[str] = CELL
) -> Report:
    """Audit every way.

    Args:
        model: What the cells serve; they replace its launch settings.
        report: Told what is done.
        ways: Of `WAYS`.
        cell: Command that runs a cell, as in `running.bench`.

    Raises:
        HostError: If the caller is not root, who alone may look into every process, or a cell does not start.
    """
    if os.geteuid() != 0:
        raise HostError("only root may read the memory of every process", hint="run it as root")
    served = Model(model.weights, model.manifest)
    model = replace(model, manifest=_PLAN.pin(served))
    canary = make_canary()
    report("computing what to look for")
    short, long = compute(model, canary, (_PROMPT_TOKENS, _LONG_PROMPT_TOKENS), _ANSWER_TOKENS, threads=1)
    sought = Sought(canary, short, long)
    results: dict[str, Seen] = {}
    for way in ways:
        report(way)
        with bench(None, 1, cell=cell) as running:
            results[way] = asyncio.run(_try(WAYS[way], running, served, sought))
    report("searching every process")
    with _holding(canary):
        holders = _processes_with(canary)
    held = _processes_with(canary)
    checks = [check for way, seen in results.items() for check in _checks(way, seen)]
    checks.append(Check("processes with the text after all cells exited", held, 0, "processes", len(ways)))
    found = holders > 0 and all(seen.control_ok for seen in results.values())
    return Report(
        tuple(checks),
        "while a session lives its traces are found, and the text in a process that holds it",
        found,
    )


async def _try(way: Callable[[Cell], Awaitable[None]], running: Bench, served: Model, sought: Sought) -> Seen:
    async with running.run(_PLAN, served) as servers:
        cell = Cell(servers.endpoints[0], servers.pids[0], running.notary_pid, sought)
        try:
            await way(cell)
            await cell.conclude()
        finally:
            cell.resume()
        return cell.seen


def _checks(way: str, seen: Seen) -> list[Check]:
    if seen.ends_cell:
        return [Check(f"{way}: time until the cell has exited", seen.exit_s, _EXIT_S, "s", 1)]
    checks = [
        Check(f"{way}: {kind} left in the living cell", seen.after[kind], 0, f"of {found}", wanted)
        for kind, (wanted, found) in seen.before.items()
    ]
    return [*checks, Check(f"{way}: copies of the text in the living cell", seen.text, None, "copies", 1)]


@contextlib.contextmanager
def _holding(canary: str) -> Iterator[None]:
    """Run a process that holds the text."""
    command = [
        sys.executable,
        "-c",
        "import sys; text = sys.stdin.readline(); print(flush=True); sys.stdin.read()",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        if holder.stdin is None or holder.stdout is None:
            raise AssertionError("both were asked for")
        holder.stdin.write(canary + "\n")
        holder.stdin.flush()
        holder.stdout.readline()
        yield
        holder.stdin.close()


def _processes_with(canary: str) -> int:
    """Return how many processes other than this one hold the text."""
    pids = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()} - {os.getpid()}
    plain = forms(canary)[:3]
    return sum(any(count_in(read_memory(pid, writable=True), plain).values()) for pid in pids)

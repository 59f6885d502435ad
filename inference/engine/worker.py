"""The thread that owns a runner: commands in, pieces out.

Commands are functions of the runner, run between two steps in the order they came. What a step produced goes to the
event loop with one call_soon_threadsafe, however many answers it belongs to; of steps that take next to no time, several
go together.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Generic, TypeVar

from appliance.core.errors import ApplianceError
from inference.engine.erase import Erased
from inference.engine.errors import EngineFailed
from inference.engine.pace import Speed
from inference.engine.runner import Piece, Pieces, Runner
from inference.engine.sampling import Sampling

_TIDY_AFTER_S = 0.05  # idle time before buffers are overwritten; a command makes that give way

# Pieces that come faster are handed over together: nobody reads 250 of them a second, and the event loop would take the
# processor from who computes.
_HAND_OVER_S = 0.004

T = TypeVar("T")
Owner = TypeVar("Owner")
Deliver = Callable[[list[tuple[Owner, Piece]], EngineFailed | None], None]


class Worker(Generic[Owner]):
    """Runs the steps of one engine.

    Args:
        runner: Used by this thread alone from now on.
        release: Called last, when every stream is closed: frees what the runner ran on.
        loop: Where `deliver` is called.
        deliver: Takes the pieces of a step, each with the owner that `start` named; and a failure, once.
    """

    def __init__(
        self,
        runner: Runner,
        release: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        deliver: Deliver[Owner],
    ) -> None:
        self._runner = runner
        self._release = release
        self._loop = loop
        self._deliver = deliver
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._owners: dict[int, Owner] = {}
        self._held: list[tuple[Owner, Piece]] = []  # pieces that were not handed over yet
        self._handed_at = 0.0
        self._failure: EngineFailed | None = None
        self._ending = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def speed(self) -> Speed:
        """What the runner measured lately."""
        return self._runner.speed

    async def open(self) -> int:
        """Run `Runner.open`."""
        return await self._call(self._healthy(self._runner.open))

    async def start(
        self,
        stream: int,
        prompt: list[int],
        sampling: Sampling,
        owner: Owner,
        *,
        like: int | None = None,
        shared: int = 0,
    ) -> None:
        """Run `Runner.start`; what comes of it is delivered to `owner`."""

        def start() -> None:
            self._runner.start(stream, prompt, sampling, like, shared)
            self._owners[stream] = owner

        await self._call(self._healthy(start))

    def cancel(self, stream: int) -> None:
        """Run `Runner.cancel`, without waiting for it."""

        def cancel() -> None:
            self._owners.pop(stream, None)
            self._runner.cancel(stream)

        self._put(cancel)

    async def close(self, stream: int) -> Erased:
        """Run `Runner.close`. An erase that does not verify is a failure of the engine."""

        def close() -> Erased:
            self._owners.pop(stream, None)
            erased = self._runner.close(stream)
            if not erased.verified:
                self._fail(EngineFailed("a closed stream does not read back as zero"))
            return erased

        return await self._call(close)

    async def aclose(self) -> None:
        """Close every stream, free everything, end the thread."""
        if not self._ending:
            self._ending = True
            self._put(None)
        await self._ended.wait()
        self._thread.join()

    async def _call(self, command: Callable[[], T]) -> T:
        if self._ending:
            raise EngineFailed("the engine is closed")
        answer: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                result = command()
            except ApplianceError as error:
                self._tell(_settle, answer, answer.set_exception, error)
                if isinstance(error, EngineFailed):
                    self._fail(error)
            else:
                self._tell(_settle, answer, answer.set_result, result)

        self._put(run)
        return await answer

    def _put(self, command: Callable[[], None] | None) -> None:
        self._commands.put(command)
        self._runner.interrupt()  # after it is there to be found

    def _healthy(self, command: Callable[[], T]) -> Callable[[], T]:
        """Refuse a command once the engine has failed; closing streams still goes on then."""

        def run() -> T:
            if self._failure is not None:
                raise self._failure
            return command()

        return run

    # What follows runs on the thread.

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            with contextlib.suppress(ApplianceError):
                self._runner.close_all()
        finally:
            self._release()
            self._tell(self._ended.set)

    def _turn(self) -> bool:
        """Run one command or one step; return False when told to end."""
        try:
            stepping = self._failure is None and self._runner.busy
            if not stepping:
                self._hand_over()
            try:
                command = self._next_command(block=not stepping)
            except Empty:
                self._step() if stepping else self._runner.tidy(lambda: not self._commands.empty())
                return True
            if command is None:
                return False
            self._hand_over()  # what it begins may take long
            command()
        except EngineFailed as error:
            self._fail(error)
        except Exception:  # noqa: BLE001 - the edge of the thread: whatever it is, sessions must learn of it
            self._fail(EngineFailed("the engine met an unexpected error"))
        return True

    def _next_command(self, *, block: bool) -> Callable[[], None] | None:
        if not block:
            return self._commands.get_nowait()
        idle = self._failure is None and self._runner.tidy_due
        return self._commands.get(timeout=_TIDY_AFTER_S if idle else None)

    def _step(self) -> None:
        pieces = self._runner.step(self._hand_over_early)
        self._hold(pieces)
        ends = any(piece.finish is not None for _, piece in pieces)
        if ends or perf_counter() - self._handed_at >= _HAND_OVER_S:
            self._hand_over()

    def _hand_over_early(self, pieces: Pieces) -> None:
        self._hold(pieces)
        self._hand_over()

    def _hold(self, pieces: Pieces) -> None:
        self._held += [(self._owner(stream, piece), piece) for stream, piece in pieces]

    def _hand_over(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._handed_at = perf_counter()
            self._tell(self._deliver, held, None)

    def _owner(self, stream: int, piece: Piece) -> Owner:
        """Return whose piece it is; after the last one, forget it, and with it what it holds of the answer."""
        return self._owners[stream] if piece.finish is None else self._owners.pop(stream)

    def _fail(self, failure: EngineFailed) -> None:
        if self._failure is None:
            self._failure = failure
            self._hand_over()
            self._tell(self._deliver, [], failure)

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *args)


def _settle(answer: asyncio.Future[Any], settle: Callable[[Any], None], value: object) -> None:
    if not answer.done():  # its reader may be gone
        settle(value)

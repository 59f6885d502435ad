"""Who gets a stream, and who waits for one how long at most: `Line` decides, `Admission` lets asyncio wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from appliance.core.errors import ApplianceError, RefusedError
from inference.engine.errors import NoFreeStream, QueueFull

Waiter = TypeVar("Waiter")


@dataclass(frozen=True)
class Limits:
    """Bounds of waiting for a stream.

    Attributes:
        waiting: Requests that may wait at once, 0 to 1024.
        wait_s: Longest that one of them may wait, in seconds, 0 to 300.

    Raises:
        RefusedError: Naming the field that is out of bounds.
    """

    waiting: int = 32
    wait_s: float = 30.0

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not 0 <= self.waiting <= 1024:
            raise RefusedError("must be between 0 and 1024", field="waiting")
        if not 0.0 <= self.wait_s <= 300.0:  # NaN fails as well
            raise RefusedError("must be between 0 and 300", field="wait_s")


class Line(Generic[Waiter]):
    """So many streams, and a bounded line of those who wait for some, first come, first served. Pure: no clock.

    Who needs several gets them together or none: two who held one each and waited for another's would wait for ever.
    Streams that are free while somebody waits are too few for the first in line, and nobody overtakes that one.

    Args:
        streams: How many there are.
        length: Most that may wait.
    """

    def __init__(self, streams: int, length: int) -> None:
        self._free = streams
        self._length = length
        self._waiting: deque[tuple[Waiter, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def free(self) -> int:
        """Streams that nobody holds."""
        return self._free

    def claim(self, count: int) -> bool:
        """Take so many streams; return False if others wait or there are not enough."""
        if self._waiting or self._free < count:
            return False
        self._free -= count
        return True

    def join(self, waiter: Waiter, count: int) -> bool:
        """Wait for so many behind the others; return False if as many wait as may."""
        if len(self._waiting) >= self._length:
            return False
        self._waiting.append((waiter, count))
        return True

    def leave(self, waiter: Waiter) -> list[tuple[Waiter, int]]:
        """Wait no longer; return who has streams now, and how many. Whoever does not wait may leave as well."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not waiter)
        return self._serve()

    def release(self, count: int) -> list[tuple[Waiter, int]]:
        """Give streams back; return who has some now, and how many."""
        self._free += count
        return self._serve()

    def disperse(self) -> list[Waiter]:
        """Send everybody away; return who waited, in order."""
        waited = [waiter for waiter, _ in self._waiting]
        self._waiting.clear()
        return waited

    def _serve(self) -> list[tuple[Waiter, int]]:
        served = []
        while self._waiting and self._waiting[0][1] <= self._free:
            served.append(self._waiting.popleft())
            self._free -= served[-1][1]
        return served


class Admission:
    """The line for the streams of one engine. Belongs to the event loop's thread.

    Args:
        streams: How many there are.
        limits: Bounds of waiting.
        retry_after_s: Says when it is worth to try again, given how many wait already.
    """

    def __init__(self, streams: int, limits: Limits, retry_after_s: Callable[[int], int]) -> None:
        self._streams = streams
        self._line: Line[asyncio.Future[None]] = Line(streams, limits.waiting)
        self._limits = limits
        self._retry_after_s = retry_after_s
        self._refusal: Callable[[], ApplianceError] | None = None

    def __len__(self) -> int:
        return len(self._line)

    async def claim(self, count: int, wait_s: float) -> None:
        """Return when so many streams are the caller's, who gives them back with `release`.

        Being cancelled leaves nothing behind.

        Args:
            count: How many, all of them together.
            wait_s: Most seconds to wait for them, cut to the limit; 0 refuses at once.

        Raises:
            NoFreeStream: If too many are taken, and still were when the wait was over.
            QueueFull: If as many wait already as may.
            ApplianceError: The refusal, if there is one or it comes meanwhile.
        """
        self.verify_open()
        if self._line.claim(count):
            return
        wait_s = min(wait_s, self._limits.wait_s)
        if count > self._streams or not wait_s > 0:
            raise self._no_stream()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._line.join(turn, count):
            raise QueueFull(self._retry_after_s(len(self)))
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except TimeoutError:
            self._leave(turn, count)
            raise self._no_stream() from None
        except asyncio.CancelledError:
            self._leave(turn, count)
            raise

    def release(self, count: int = 1) -> None:
        """Give streams back; whoever waits has them first."""
        self._wake(self._line.release(count))

    def refuse(self, refusal: Callable[[], ApplianceError]) -> None:
        """Give out no more streams; tell so whoever waits, at once.

        Args:
            refusal: Makes the error, a new one each time: an exception keeps the frames that it was raised through.
        """
        self._refusal = refusal
        for turn in self._line.disperse():
            if not turn.done():
                turn.set_exception(refusal())

    def verify_open(self) -> None:
        """Check that work is taken; return None or raise the refusal."""
        if self._refusal is not None:
            raise self._refusal()

    def _leave(self, turn: asyncio.Future[None], count: int) -> None:
        """Wait no longer; pass on what was given in the same instant."""
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self.release(count)
        else:
            self._wake(self._line.leave(turn))

    def _wake(self, served: list[tuple[asyncio.Future[None], int]]) -> None:
        for turn, count in served:
            if turn.done():  # it was cancelled, and its caller has not run since
                self.release(count)
            else:
                turn.set_result(None)

    def _no_stream(self) -> NoFreeStream:
        return NoFreeStream(self._retry_after_s(len(self)))

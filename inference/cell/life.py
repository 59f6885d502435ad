"""What of the cell's state decides how long it lives: running requests, and whether new ones are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from appliance.core.receipt import End
from inference.cell.policy_file import Credentials
from inference.cell.work import Work


class Life:
    """The requests that run now.

    Attributes:
        running: Every request that was admitted and is not answered yet.
        draining: No request is taken any more.
        closing: No kept session is opened any more; the cell ends as soon as what runs is answered.
        last_request_at: When a request ended last (at first: when the cell began), on the monotonic clock.
        last_content_at: When a request that brought content ended last; None while no text has come in.
        engine_failed: The engine gave up; the cell cannot go on.
        changed: Set whenever something happened that may let the cell end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.running: set[Work] = set()
        self.draining = False
        self.closing = False
        self.engine_failed = False
        self.last_request_at = clock()
        self.last_content_at: float | None = None
        self.changed = asyncio.Event()

    def begin(self, work: Work) -> None:
        """A request was admitted."""
        self.running.add(work)

    def finish(self, work: Work) -> None:
        """A request was answered or given up."""
        self.running.discard(work)
        self.last_request_at = self._clock()
        if work.has_content:
            self.last_content_at = self.last_request_at
        self.changed.set()

    def stop_devices(self, credentials: Credentials, reason: End) -> None:
        """Stop the requests of devices that are admitted no longer."""
        for work in tuple(self.running):
            if work.device.credential in credentials:
                work.stop(reason)

    def drain(self) -> None:
        """Take no more requests, and stop those that wait in line: no stream comes free for them any more."""
        self.draining = True
        for work in tuple(self.running):
            if work.in_line:
                work.stop(End.DRAINED)

    def stop_all(self, reason: End) -> None:
        """Take no more requests and stop those that run."""
        self.draining = True
        for work in tuple(self.running):
            work.stop(reason)

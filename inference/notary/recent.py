"""How much a client's sessions used of late: what a fresh cell counts against the client's rates, which its predecessor took along."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from appliance.core.budget import Used

_MINUTE_S = 60.0


@dataclass
class Recent:
    """Requests and tokens of this minute and the one before it.

    Args:
        clock: Monotonic, in seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _minute: int = 0
    _counts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0), (0, 0)])

    def note(self, requests: int, tokens: int) -> None:
        """Count a session that ended."""
        self._turn()
        old, (had_requests, had_tokens) = self._counts
        self._counts = [old, (had_requests + requests, had_tokens + tokens)]

    def of_a_minute(self) -> Used:
        """Return what was used in the last 60 s, as if that of the minute before had come evenly."""
        part = 1 - self._turn()
        old, new = self._counts
        return Used(requests=new[0] + ceil(old[0] * part), tokens=new[1] + ceil(old[1] * part))

    def _turn(self) -> float:
        """Begin a new minute if it is time; return how much of it has passed."""
        minute, passed = divmod(self.clock(), _MINUTE_S)
        if minute != self._minute:
            last = self._counts[1] if minute == self._minute + 1 else (0, 0)
            self._minute, self._counts = int(minute), [last, (0, 0)]
        return passed / _MINUTE_S

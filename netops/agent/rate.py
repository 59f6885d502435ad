"""How many tokens a second the node writes, coarse: over minutes and rounded, so that no single answer shows in it."""

from __future__ import annotations

from collections import deque
from typing import Final

from appliance.core.health import coarse

SHORTEST_S: Final = 60.0  # over less than this no rate is told
LONGEST_S: Final = 300.0


class TokenRate:
    """A rate out of a total that only grows; one that shrank is another run's of the notary."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def note(self, total: int, now_s: float) -> int:
        """Take the total of this moment; return tokens per second over the last minutes, 0 while that is not known.

        Args:
            total: Tokens ever written in sessions that have ended.
            now_s: On a clock that only goes forward.
        """
        marks = self._marks
        if marks and total < marks[-1][1]:
            marks.clear()
        marks.append((now_s, total))
        # The mark before the window's beginning stays: the window is at least as long as it says.
        while len(marks) > 2 and now_s - marks[1][0] >= LONGEST_S:
            marks.popleft()
        lasted_s = now_s - marks[0][0]
        return coarse((total - marks[0][1]) / lasted_s) if lasted_s >= SHORTEST_S else 0

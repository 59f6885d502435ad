"""From token bytes to text, as they come: UTF-8 across tokens, stop texts across tokens.

Python strings cannot be overwritten; what passes through here is gone when the cell's process is.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable


class StopMatcher:
    """Cuts a text before the first stop text, holding back only what may still become one.

    "First" is the stop that ends first, and of several that end together the longest: the only choice that does not
    depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple({stop for stop in stops if stop})
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take more text; return what can be shown now. After `stopped` nothing more comes out."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = len(text) - self._hold_back(text)
        self._held = text[keep:]
        return text[:keep]

    @property
    def held(self) -> int:
        """Characters held back."""
        return len(self._held)

    def flush(self) -> str:
        """Return what was held back: the text ended, so it did not become a stop."""
        held, self._held = self._held, ""
        return held

    def _hold_back(self, text: str) -> int:
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


class AnswerText:
    """The text of one answer, token by token.

    Args:
        stops: Texts that end the answer.
        strip_space: Drop one leading space (SentencePiece puts one before the first word).
    """

    def __init__(self, stops: Iterable[str], *, strip_space: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matcher = StopMatcher(stops)
        self._strip_space = strip_space

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met."""
        return self._matcher.stopped

    @property
    def held(self) -> int:
        """Characters that are not shown yet since they may become a stop text."""
        return self._matcher.held

    def feed(self, piece: bytes) -> str:
        """Take the bytes of one token; return new text, never half a character."""
        if self._strip_space and piece:
            piece, self._strip_space = piece.removeprefix(b" "), False
        return self._matcher.feed(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back: half characters become U+FFFD, half stops are text."""
        return self._matcher.feed(self._decoder.decode(b"", final=True)) + self._matcher.flush()

"""Log probabilities of an answer's tokens, for requests that ask: of the model's own distribution, before temperature,
filters, bias and penalties. Requests that do not ask never come here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LOWEST: Final = -9999.0  # what the OpenAI API writes for next to nothing; JSON has no infinity


@dataclass(frozen=True)
class Candidate:
    """A token that could come next.

    Attributes:
        text: The token as text, half characters replaced; of a control token its name.
        bytes: What it stands for, None for a control token.
        logprob: Natural logarithm of its probability, `LOWEST` to 0.
    """

    text: str
    bytes: bytes | None
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer.

    Attributes:
        chosen: The token.
        likeliest: As many as were asked for, the likeliest first.
        offset: Where it begins in the answer's text, in characters.
    """

    chosen: Candidate
    likeliest: tuple[Candidate, ...]
    offset: int


class Logprobs:
    """The log probabilities of one answer, released with the text that they belong to.

    A token waits for its text: as long as that may still become a stop text, and for ever if it does.

    Args:
        likeliest: How many of the likeliest tokens to name with each.
        describe: Returns text and bytes of a token, as `Candidate` has them.
        n_vocab: Tokens of the vocabulary.
    """

    def __init__(
        self, likeliest: int, describe: Callable[[int], tuple[str, bytes | None]], n_vocab: int
    ) -> None:
        self._count = min(likeliest, n_vocab)
        self._describe = describe
        self._row = np.zeros(n_vocab, np.float32)
        self._waiting: list[TokenLogprob] = []
        self._shown = 0

    def observe(self, logits: NDArray[np.float32]) -> None:
        """Take a row of logits (n_vocab,) before a token is picked from it."""
        np.subtract(logits, logits.max(), out=self._row)
        self._row -= np.log(np.exp(self._row).sum(dtype=np.float64))

    def add(self, token: int, *, held: int) -> None:
        """Take the token that was picked from the observed row.

        Args:
            token: The token.
            held: Characters before it that are not shown yet.
        """
        likeliest = (
            np.argpartition(self._row, -self._count)[-self._count :] if self._count else np.empty(0, int)
        )
        ranked = sorted(likeliest.tolist(), key=lambda other: (-self._row[other], other))
        named = tuple(self._candidate(other) for other in ranked)
        self._waiting.append(TokenLogprob(self._candidate(token), named, self._shown + held))

    def release(self, text: str, *, ended: bool) -> tuple[TokenLogprob, ...]:
        """Return the tokens whose text has begun to be shown, and forget them.

        Args:
            text: What is shown now.
            ended: The answer ended, and not at a stop text: nothing is left to wait for.
        """
        self._shown += len(text)
        count = sum(ended or waiting.offset < self._shown for waiting in self._waiting)
        released, self._waiting = tuple(self._waiting[:count]), self._waiting[count:]
        return released

    def close(self) -> None:
        """Overwrite the last row."""
        self._row.fill(0)
        self._waiting.clear()

    def _candidate(self, token: int) -> Candidate:
        text, data = self._describe(token)
        return Candidate(text, data, max(float(self._row[token]), LOWEST))

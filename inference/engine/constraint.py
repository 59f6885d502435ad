"""A grammar over tokens: which of them may be the next one of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.engine.grammar import Automaton, GrammarTooComplexError, State

_DEAD: Final = State(accepting=False, mask=0, leaves=())


class Constraint:
    """Follows one answer. Belongs to the engine's thread.

    Args:
        automaton: Of the grammar of the answer's text; the choices of one request share it.
        pieces: Bytes of every token, by id; control tokens have none.
        first_bytes: (n_vocab,) int16, the first byte of every token, -1 where it has none.
        stop_tokens: End the answer; allowed where the text may end.
        skip_space: The first token's leading space is not part of the text (SentencePiece).
    """

    def __init__(
        self,
        automaton: Automaton,
        pieces: Sequence[bytes],
        first_bytes: NDArray[np.int16],
        stop_tokens: frozenset[int],
        *,
        skip_space: bool,
    ) -> None:
        self._automaton = automaton
        self._state = automaton.start
        self._pieces = pieces
        self._first_bytes = first_bytes
        self._stop_tokens = stop_tokens
        self._skip_space = skip_space

    @property
    def ended(self) -> bool:
        """Whether nothing may follow: the text is complete, or no text that fits begins like it."""
        return not self._state.mask

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._state.accepting

    def allows(self, token: int) -> bool:
        """Whether a token may be the next one."""
        if token in self._stop_tokens:
            return self._state.accepting
        return self._after(token) is not None

    def advance(self, token: int) -> None:
        """Take the next token; one that is not allowed leaves a text that nothing may follow."""
        if token not in self._stop_tokens:
            self._state = self._after(token) or _DEAD
            self._skip_space = False

    def allowed(self) -> NDArray[np.bool_]:
        """Return for every token whether it may be the next one, (n_vocab,) bool."""
        firsts = np.zeros(257, np.bool_)  # the last is for -1
        for byte in range(256):
            firsts[byte] = self._state.mask >> byte & 1
        firsts[0x20] |= self._skip_space
        allowed = firsts[self._first_bytes]
        for token in np.flatnonzero(allowed).tolist():
            allowed[token] = self.allows(token)
        for token in self._stop_tokens:
            allowed[token] = self._state.accepting
        return allowed

    def _after(self, token: int) -> State | None:
        piece = self._pieces[token]
        if not piece:
            return None
        try:
            return self._automaton.walk(self._state, piece.removeprefix(b" ") if self._skip_space else piece)
        except GrammarTooComplexError:
            return None

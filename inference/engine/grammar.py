"""Which bytes may come next: a context-free grammar, and the automaton that it becomes as it is walked.

Pure Python and bounded, so that a grammar made from a client's schema can neither crash the process nor fill it. A state is
the set of all places in the grammar where a text so far may stand, each a terminal and the frames that wait behind it.
States and steps are kept, so a byte that was seen before in a state costs one look into a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MOST_FRAMES: Final = 100_000  # of one automaton
MOST_PLACES: Final = 20_000  # that one state is made from


class GrammarTooComplexError(Exception):
    """A text has led to where the grammar needs more memory than it may have."""


@dataclass(frozen=True, eq=False)
class OneOf:
    """One byte: b may come if bit b of `mask` is set."""

    mask: int


@dataclass(frozen=True, eq=False)
class Sequence:
    """All parts, one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """One of the options."""

    options: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Repeat:
    """A node that needs at least one byte, again and again: at least `least` times, at most `most` (None: any number)."""

    node: Node
    least: int = 0
    most: int | None = None


@dataclass(eq=False)
class Rule:
    """A node that is named before it is known, so that grammars can be recursive. It must need a byte before itself."""

    node: Node | None = None


Node = OneOf | Sequence | Choice | Repeat | Rule


def bytes_of(*characters: str) -> OneOf:
    """Return one of some ASCII characters; `"a-z"` is a range."""
    mask = 0
    for spelled in characters:
        first, last = (
            (spelled[0], spelled[2]) if len(spelled) == 3 and spelled[1] == "-" else (spelled, spelled)
        )
        mask |= _range(ord(first), ord(last))
    return OneOf(mask)


def byte_range(first: int, last: int) -> OneOf:
    """Return one byte from `first` to `last`."""
    return OneOf(_range(first, last))


def literal(text: bytes) -> Node:
    """Return exactly these bytes."""
    return Sequence(tuple(OneOf(1 << byte) for byte in text))


def optional(node: Node) -> Node:
    """Return the node or nothing."""
    return Choice((node, NOTHING))


NOTHING: Final = Sequence(())


def _range(first: int, last: int) -> int:
    return (1 << last + 1) - (1 << first)


@dataclass(frozen=True, eq=False)
class _Frame:
    """A node that is expected, and what is expected behind it (None: the end)."""

    node: Node
    rest: _Frame | None


@dataclass(eq=False)
class State:
    """Where a text may stand.

    Attributes:
        accepting: Whether the text may end here.
        mask: The bytes that may come, as in `OneOf`.
    """

    accepting: bool
    mask: int
    leaves: tuple[_Frame, ...]
    steps: dict[int, State | None] = field(default_factory=dict)


class Automaton:
    """Walks one grammar. Used by one thread at a time.

    Args:
        root: The grammar.

    Attributes:
        start: Before the first byte.

    Raises:
        GrammarTooComplexError: As `step`.
    """

    def __init__(self, root: Node) -> None:
        self._frames: dict[tuple[int, int], _Frame] = {}
        self._shorter: dict[tuple[int, int, int | None], Repeat] = {}
        self._states: dict[frozenset[_Frame | None], State] = {}
        self.start = self._state([self._frame(root, None)])

    def step(self, state: State, byte: int) -> State | None:
        """Return the state after one more byte, None if it may not come.

        Raises:
            GrammarTooComplexError: If the automaton would grow beyond its bounds.
        """
        if byte not in state.steps:
            rests = [
                leaf.rest
                for leaf in state.leaves
                if isinstance(leaf.node, OneOf) and leaf.node.mask >> byte & 1
            ]
            state.steps[byte] = self._state(rests) if rests else None
        return state.steps[byte]

    def walk(self, state: State, data: bytes) -> State | None:
        """Return the state after some bytes, None if they may not come."""
        at: State | None = state
        for byte in data:
            if at is None:
                return None
            at = self.step(at, byte)
        return at

    def _state(self, frames: Iterable[_Frame | None]) -> State:
        todo, seen = list(frames), set[_Frame | None]()
        leaves: set[_Frame | None] = set()
        while todo:
            frame = todo.pop()
            if frame in seen:
                continue
            seen.add(frame)
            if len(seen) > MOST_PLACES:
                raise GrammarTooComplexError
            if frame is None or isinstance(frame.node, OneOf):
                leaves.add(frame)
            else:
                todo += self._expanded(frame)
        key = frozenset(leaves)
        if key not in self._states:
            terminals = tuple(leaf for leaf in leaves if leaf is not None)
            mask = 0
            for leaf in terminals:
                mask |= leaf.node.mask if isinstance(leaf.node, OneOf) else 0
            self._states[key] = State(None in leaves, mask, terminals)
        return self._states[key]

    def _expanded(self, frame: _Frame) -> list[_Frame | None]:
        """Return the places that a frame which is no terminal stands for."""
        node, rest = frame.node, frame.rest
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                rest = self._frame(part, rest)
            return [rest]
        if isinstance(node, Choice):
            return [self._frame(option, rest) for option in node.options]
        if isinstance(node, Repeat):
            again = node.most is None or node.most > 0
            once = [self._frame(node.node, self._frame(self._less(node), rest))] if again else []
            return [*once, rest] if node.least == 0 else list(once)
        assert isinstance(node, Rule)
        assert node.node is not None, "a rule that was never given its node"
        return [self._frame(node.node, rest)]

    def _frame(self, node: Node, rest: _Frame | None) -> _Frame:
        key = id(node), id(rest)
        if key not in self._frames:
            if len(self._frames) >= MOST_FRAMES:
                raise GrammarTooComplexError
            self._frames[key] = _Frame(node, rest)  # and so holds both, whose ids stay theirs
        return self._frames[key]

    def _less(self, node: Repeat) -> Repeat:
        """Return what is left of a repetition after one."""
        least, most = max(0, node.least - 1), None if node.most is None else node.most - 1
        if (least, most) == (node.least, node.most):
            return node
        return self._shorter.setdefault((id(node.node), least, most), Repeat(node.node, least, most))

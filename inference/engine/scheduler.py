"""Who decodes in the next step: a state machine that knows tokens and positions, and nothing of llama.cpp or of time.

A step first decodes one token for every stream that is generating, then prefills one bounded chunk of one stream that
still has prompt left. So a long prompt delays the others by one chunk per token and never by its length.

The chunk goes to the prompt with the least left to prefill, where each chunk that a prompt waited for counts as
`AGEING_TOKENS` done. The bound: of a prompt with R tokens to prefill, at most ceil(R / AGEING_TOKENS) chunks pass
before no later prompt can overtake it any more; then only the prompts of the other S - 1 streams are before it, with
ceil(C / AGEING_TOKENS) chunks each at most (C: context). So its last chunk is among the next
ceil(R / AGEING_TOKENS) + S * ceil(C / AGEING_TOKENS). It holds since no chunk but a prompt's last is smaller than
`AGEING_TOKENS`: being served brings a prompt forward at least as much as waiting does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.core.errors import RefusedError
from inference.engine.errors import ContextOverflow, EngineFailed, NoFreeStream, StreamBusy
from inference.engine.gaps import filled, has_gaps
from inference.engine.lookup import FIRST_RATE, find, learned
from inference.engine.pace import MOST_ROWS, UNMEASURED, Speed, chunk_tokens, guesses_worth

AGEING_TOKENS: Final = 32  # what having waited for one chunk counts; only a last chunk is shorter
CELL_PADDING: Final = 256  # attention runs over a multiple of this of the longest stream in a sub-batch
LEAST_SHARED: Final = 64  # tokens for which copying cells pays
_MOST_READ: Final = 16  # times as many cells as are copied
FILLER_TOKEN: Final = 0  # what filler rows decode: in every vocabulary, and nobody's content

Tokens = NDArray[np.int32]


@dataclass
class Stream:
    """One KV stream and the session that holds it.

    Attributes:
        tokens: (context_tokens,) int32; the first `known` are the prompt and the answer so far.
        known: Tokens in `tokens`.
        cached: How many of them the KV cache holds.
        high_water: Most cells that were ever written since the stream was opened, or left by fillers before.
        longest: Most tokens that a prompt and its answer had since then. Unlike `high_water` it depends on nothing but
            lengths: not on what was guessed, nor on what ran beside it.
        prompt: Length of the prompt of the answer in progress, 0 if none is.
        limit: `known` at which that answer ends.
        arrival: Number of that answer, counted over all streams.
        waited: Chunks that other prompts got while this one had some left to prefill.
        lookup: Whether the next tokens may be guessed (`lookup`).
        follows: The stream that reads the same prompt, whose cells are copied when it has; None if this one reads it.
        rate: Share of guesses that were right lately.
    """

    tokens: Tokens
    known: int = 0
    cached: int = 0
    high_water: int = 0
    longest: int = 0
    prompt: int = 0
    limit: int = 0
    arrival: int = 0
    waited: int = 0
    lookup: bool = False
    follows: int | None = None
    rate: float = FIRST_RATE

    @property
    def prefilling(self) -> bool:
        """Whether some of the prompt is not in the KV cache yet."""
        return self.cached < self.prompt

    @property
    def decoding(self) -> bool:
        """Whether there is a new token to decode."""
        return 0 < self.prompt <= self.cached < self.known

    def guess(self) -> range:
        """Return where in `tokens` a guess at the next ones stands; empty if there is none."""
        room = self.limit - self.known - 1  # behind the token that is chosen in any case
        if not self.lookup or room < 1 or (start := find(self.tokens[: self.known])) is None:
            return range(0)
        return range(start, min(self.known, start + room))

    def wipe(self) -> None:
        """Overwrite the tokens."""
        self.tokens.fill(0)


@dataclass(frozen=True)
class Chunk:
    """A piece of a prompt: positions `start` to `stop` of a stream; `last` if the prompt ends with it."""

    stream: int
    start: int
    stop: int
    last: bool


@dataclass(frozen=True)
class Step:
    """What to run next: one batch of a row for each of some streams, and then a chunk of a prompt.

    Attributes:
        decode: Streams that decode their next token, ascending.
        rows: Those and the fillers between them, ascending. A filler row decodes `FILLER_TOKEN` at the end of a stream
            that does not generate, and its cell is removed at once.
        chunk: The chunk, None if no prompt waits.
        guesses: Where each decoding stream's tokens hold a guess at its next ones, empty ranges where they don't; none
            at all if nobody looked.
        guessed: How many of its guess each stream decodes behind its token: all as many, since llama.cpp makes
            sub-batches of rows that all streams have, and none where there are fillers.
    """

    decode: tuple[int, ...]
    rows: tuple[int, ...]
    chunk: Chunk | None
    guesses: tuple[range, ...] = ()
    guessed: int = 0

    @property
    def fillers(self) -> tuple[int, ...]:
        """Streams whose row is a filler, ascending."""
        if len(self.rows) == len(self.decode):
            return ()
        return tuple(stream for stream in self.rows if stream not in self.decode)


class Scheduler:
    """The streams of one context.

    Args:
        streams: How many there are.
        context_tokens: Most tokens of a stream, prompt and answer together.
        chunk_tokens: Largest chunk while other streams decode and no speed was measured.
        batch_tokens: Largest chunk otherwise.
    """

    def __init__(self, *, streams: int, context_tokens: int, chunk_tokens: int, batch_tokens: int) -> None:
        self._context_tokens = context_tokens
        self._incoming = np.zeros(context_tokens, np.int32)
        self._chunk_tokens = min(chunk_tokens, batch_tokens)
        self._batch_tokens = batch_tokens
        self._ageing_tokens = min(AGEING_TOKENS, self._chunk_tokens)
        self._streams: list[Stream | None] = [None] * streams
        self._spare_cells = [0] * streams  # most cells that were written while nobody held the stream
        self._answers = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to run."""
        return any(stream is not None and stream.prompt for stream in self._streams)

    @property
    def free(self) -> tuple[int, ...]:
        """Streams that nobody holds, ascending."""
        return tuple(index for index, stream in enumerate(self._streams) if stream is None)

    @property
    def held(self) -> tuple[int, ...]:
        """Streams that are open, ascending."""
        return tuple(index for index, stream in enumerate(self._streams) if stream is not None)

    def open(self) -> int:
        """Claim the lowest free stream: llama.cpp joins streams into one batch only while their ids are contiguous.

        Raises:
            NoFreeStream: If all are open.
        """
        if not self.free:
            raise NoFreeStream
        index = self.free[0]
        tokens = np.zeros(self._context_tokens, np.int32)
        self._streams[index] = Stream(tokens, high_water=self._spare_cells[index])
        self._spare_cells[index] = 0
        return index

    @property
    def emptiest(self) -> tuple[int, int]:
        """The stream with the most room and how many tokens its KV cache holds; a free one if there is one."""
        if self.free:
            return self.free[0], 0
        index = min(self.held, key=lambda held: self.stream(held).cached)
        return index, self.stream(index).cached

    def stream(self, index: int) -> Stream:
        """Return an open stream.

        Raises:
            StreamBusy: If it is not open.
        """
        stream = self._streams[index] if 0 <= index < len(self._streams) else None
        if stream is None:
            raise StreamBusy("the stream is not open")
        return stream

    def begin(
        self,
        index: int,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        lookup: bool = False,
        like: int | None = None,
    ) -> int:
        """Start an answer; return how many tokens of the prompt the stream's KV cache already holds.

        The caller cuts the KV cache to that length. At least one token is always left to prefill, since the first new
        token comes from the logits of the prompt's last.

        Args:
            index: The stream.
            prompt: The whole conversation.
            max_tokens: Length of the answer.
            lookup: Whether its tokens may be guessed.
            like: A stream of the same session; if it is reading the same prompt, this one waits for a copy of it.

        Raises:
            StreamBusy: If the stream is not open or has an answer in progress.
            RefusedError: If the prompt is empty or max_tokens is below 1.
            ContextOverflow: If prompt and answer do not fit. Nothing has changed then.
        """
        stream = self.stream(index)
        if stream.prompt:
            raise StreamBusy("the stream has an answer in progress")
        verify_fits(len(prompt), max_tokens, self._context_tokens)
        # Through memory of our own: numpy keeps small arrays that were freed, with what was in them.
        incoming = self._incoming[: len(prompt)]
        incoming[:] = prompt
        kept = _common_prefix(stream.tokens[: stream.cached], incoming[:-1])
        stream.tokens[kept : len(prompt)] = incoming[kept:]
        incoming.fill(0)
        stream.tokens[len(prompt) : stream.known] = 0
        stream.cached, stream.known = kept, len(prompt)
        stream.longest = max(stream.longest, len(prompt))
        stream.prompt, stream.limit = len(prompt), len(prompt) + max_tokens
        stream.arrival, stream.waited, stream.lookup = self._answers, 0, lookup
        self._answers += 1
        stream.follows = like if kept == 0 and self._reads(like, stream) else None
        return kept

    def _reads(self, index: int | None, stream: Stream) -> bool:
        """Whether a stream is reading the same prompt as another, and on its own."""
        leader = None if index is None else self.stream(index)
        if leader is None or leader is stream or leader.follows is not None or not leader.prefilling:
            return False
        prompt = leader.tokens[: leader.prompt]
        return bool(np.array_equal(prompt, stream.tokens[: stream.prompt]))

    def followers(self, index: int) -> tuple[int, ...]:
        """Return the streams that wait for a copy of this one's prompt, ascending."""
        return tuple(
            other
            for other, stream in enumerate(self._streams)
            if stream is not None and stream.prompt and stream.follows == index
        )

    def shared(self, index: int, like: int) -> int:
        """Return how many tokens of a prompt that nothing was read of yet another stream's cells hold; 0 if it follows it.

        As in `begin`, at least one token is left to prefill.
        """
        stream, leader = self.stream(index), self.stream(like)
        if stream.cached or stream.follows is not None:
            return 0
        return _common_prefix(leader.tokens[: leader.cached], stream.tokens[: stream.prompt - 1])

    def source(self, index: int, most: int) -> tuple[int, int]:
        """Return the stream to copy the beginning of a prompt from, and how many tokens; none where it would not pay.

        Args:
            index: A stream that an answer was begun on.
            most: Tokens that may be copied. As in `begin`, at least one is left to prefill.
        """
        stream = self.stream(index)
        wanted = stream.tokens[: min(most, stream.prompt - 1)]
        held = [(other, self.stream(other)) for other in self.held if other != index]
        # Of those that hold as much of it the one with the least beside it, since all of it is read.
        same, cells, other = max(
            ((_common_prefix(one.tokens[: one.cached], wanted), -one.cached, other) for other, one in held),
            default=(0, 0, index),
        )
        if same < stream.cached + LEAST_SHARED or -cells > same * _MOST_READ:
            return index, 0
        return other, same

    def adopt(self, index: int, cells: int) -> None:
        """Record that a stream's cells hold so many tokens of its prompt, as a copy."""
        stream = self.stream(index)
        if not 0 < cells <= min(stream.prompt, stream.high_water):
            raise EngineFailed("the schedule and the KV cache disagree")
        stream.cached, stream.follows = cells, None

    def plan(self, speed: Speed = UNMEASURED) -> Step:
        """Return the next step. Pure: the same again until something is reported.

        Args:
            speed: What was measured; decides how long a chunk may be while streams decode.
        """
        decode, waiting = [], []
        for index, stream in enumerate(self._streams):
            if stream is None or not stream.prompt:
                continue
            if stream.prefilling:
                if stream.follows is None:
                    waiting.append(index)
            elif stream.decoding:
                decode.append(index)
        rows = filled(decode, self._short(decode), self.free) if has_gaps(decode) else decode
        chunk = self._next_chunk(waiting, speed, alone=not decode) if waiting else None
        guesses = self._guesses(decode)
        guessed = 0
        if guesses and all(guesses) and len(rows) == len(decode):
            guessed = guesses_worth(
                speed,
                streams=len(decode),
                rate=fmean(self.stream(index).rate for index in decode),
                most=min(map(len, guesses)),
            )
        return Step(tuple(decode), tuple(rows), chunk, guesses, guessed)

    def row(self, index: int) -> tuple[int, int]:
        """Return token and position of a stream's row in a decode batch."""
        stream = self._streams[index]
        if stream is None:
            return FILLER_TOKEN, 0
        if not stream.decoding:
            return FILLER_TOKEN, stream.cached
        return stream.tokens.item(stream.cached), stream.cached

    def announce(self, index: int, stop: int) -> None:
        """Record that cells up to `stop` are about to be written, whatever comes of it."""
        stream = self._streams[index]
        if stream is None:
            self._spare_cells[index] = max(self._spare_cells[index], stop)
        else:
            stream.high_water = max(stream.high_water, stop)

    def cleaned(self, index: int) -> None:
        """Record that all cells of a free stream were overwritten."""
        self._spare_cells[index] = 0

    def advance(self, index: int, stop: int) -> None:
        """Record that the KV cache holds the stream's tokens up to `stop`."""
        stream = self.stream(index)
        if not stream.cached < stop <= min(stream.known, stream.high_water):
            raise EngineFailed("the schedule and the KV cache disagree")
        if stream.prefilling:
            for other in self._streams:
                if other is not None and other is not stream and other.prefilling:
                    other.waited += 1
        stream.cached = stop

    def compare(self, index: int, place: int, token: int | None) -> bool:
        """Return whether the token at a place was rightly guessed to be this one, and learn from it."""
        stream = self.stream(index)
        right = stream.tokens.item(place) == token
        stream.rate = learned(stream.rate, right=right)
        return right

    def append(self, index: int, token: int) -> bool:
        """Add a new token of the answer; return whether the answer is as long as it may be."""
        stream = self.stream(index)
        if stream.known >= stream.limit:
            raise EngineFailed("an answer outgrew its limit")
        stream.tokens[stream.known] = token
        stream.known += 1
        stream.longest = max(stream.longest, stream.known)
        return stream.known == stream.limit

    def end(self, index: int) -> None:
        """End the answer in progress, if any. What the KV cache holds stays for the session's next turn."""
        for follower in self.followers(index):
            self.stream(follower).follows = None  # nobody reads for it any more
        stream = self.stream(index)
        stream.prompt = stream.limit = 0
        stream.follows = None

    def close(self, index: int) -> None:
        """Overwrite the stream's tokens and free it."""
        self.stream(index).wipe()
        self._streams[index] = None

    def _guesses(self, decode: list[int]) -> tuple[range, ...]:
        streams = [self.stream(index) for index in decode]
        if len(streams) > MOST_ROWS // 2 or not any(stream.lookup for stream in streams):
            return ()
        return tuple(stream.guess() for stream in streams)

    def _next_chunk(self, waiting: list[int], speed: Speed, *, alone: bool) -> Chunk:
        index = min(waiting, key=self._priority)
        stream = self.stream(index)
        size = self._batch_tokens
        if not alone:
            size = chunk_tokens(
                speed, default=self._chunk_tokens, unit=self._ageing_tokens, most=self._batch_tokens
            )
        stop = min(stream.cached + size, stream.prompt)
        return Chunk(index, stream.cached, stop, last=stop == stream.prompt)

    def _priority(self, index: int) -> tuple[int, int]:
        stream = self.stream(index)
        left = stream.prompt - stream.cached
        return left - self._ageing_tokens * stream.waited, stream.arrival

    def _short(self, decode: list[int]) -> list[int]:
        """Return the open streams that do not decode and are no longer than what attention runs over anyway."""
        longest = max(self.stream(index).cached for index in decode) + 1
        most = min(-(-longest // CELL_PADDING) * CELL_PADDING, self._context_tokens)
        return [
            index
            for index, stream in enumerate(self._streams)
            if stream is not None and not stream.decoding and stream.cached < most
        ]


def verify_fits(prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
    """Check that a prompt and its longest answer fit; return None or raise.

    Raises:
        RefusedError: If either is below 1.
        ContextOverflow: If together they exceed the context.
    """
    if prompt_tokens < 1:
        raise RefusedError("the prompt is empty", field="messages")
    if max_tokens < 1:
        raise RefusedError("must be at least 1", field="max_tokens")
    if prompt_tokens + max_tokens > context_tokens:
        raise ContextOverflow(prompt_tokens, context_tokens)


def _common_prefix(left: Tokens, right: Tokens) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length

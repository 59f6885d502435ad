"""One engine step at a time, on the calling thread: schedule, decode, sample, detokenise. And the erase.

What is overwritten when a stream closes: its KV cells, its tokens, the logits, what its sampler remembers. What cannot:
Python strings and integers that passed through (they go with the process), llama.cpp's own copy of the last batch's
token ids and the activations in its compute buffers, which have no address for us; a batch of nothing runs over them
as soon as nobody is waiting for an answer, and makes way for who comes meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal

from inference.engine.constraint import Constraint
from inference.engine.erase import Erased, erase, overwrite_activations
from inference.engine.errors import BrokenOff, EngineFailed
from inference.engine.logprobs import Logprobs, TokenLogprob
from inference.engine.pace import UNMEASURED
from inference.engine.sampler import Logits, Sampler
from inference.engine.sampling import Sampling
from inference.engine.scheduler import Chunk, Scheduler, Step
from inference.engine.state_blob import Layout, State, parse_state, render_copy
from inference.engine.text import AnswerText
from inference.engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    from inference.engine.llama import Context


_TIDY_LATEST_S: Final = 30.0  # after a session's end; from then on activations are overwritten whoever waits


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: New text, may be empty.
        tokens: Tokens generated since the last piece, the ending one included.
        finish: Why the answer ended, None while it goes on.
        logprobs: Of the tokens whose text begins in this piece, where they were asked for.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"] | None
    logprobs: tuple[TokenLogprob, ...] = ()


Pieces = list[tuple[int, Piece]]


@dataclass
class _Answer:
    """An answer in progress."""

    sampler: Sampler
    text: AnswerText
    logprobs: Logprobs | None
    constraint: Constraint | None
    unreported: int = 0

    def choose(self, logits: Logits) -> int | None:
        """Return the next token, None if no token may come. The sampler may change the row, so it is looked at before."""
        if self.logprobs is not None:
            self.logprobs.observe(logits)
        token = self.sampler.sample(logits, self.constraint)
        if self.constraint is not None and token is not None:
            self.constraint.advance(token)
        return token

    @property
    def complete(self) -> bool:
        """Whether nothing may follow any more, since the text is what it was to be."""
        return self.constraint is not None and self.constraint.complete and self.constraint.ended

    def read(self, token: int, piece: bytes) -> str:
        """Take the bytes of the chosen token; return what can be shown now."""
        if self.logprobs is not None:
            self.logprobs.add(token, held=self.text.held)
        return self.text.feed(piece)

    def released(self, text: str, *, ended: bool) -> tuple[TokenLogprob, ...]:
        """Return the log probabilities that belong to what is shown now."""
        if self.logprobs is None:
            return ()
        return self.logprobs.release(text, ended=ended and not self.text.stopped)

    def close(self) -> None:
        """Overwrite what choosing tokens left behind."""
        self.sampler.close()
        if self.logprobs is not None:
            self.logprobs.close()


class Runner:
    """The streams of one loaded model.

    Args:
        context: Proven by `erase.prove`; this object is its only user from now on.
        layout: What the proof returned.
        vocabulary: Of the same model.
        scheduler: Fresh, with as many streams as the context.
        stops: The pin's stop texts.

    Attributes:
        prefilled: Prompt tokens decoded so far.
        speed: What was measured lately; a new value each time, so any thread may read it.
    """

    def __init__(
        self,
        context: Context,
        layout: Layout,
        vocabulary: Vocabulary,
        scheduler: Scheduler,
        stops: tuple[str, ...],
    ) -> None:
        self._context = context
        self._layout = layout
        self._vocabulary = vocabulary
        self._scheduler = scheduler
        self._stops = stops
        self._stop_tokens = vocabulary.stop_tokens(stops)
        self._answers: dict[int, _Answer] = {}
        self._traces = (
            0,
            0,
        )  # rows and outputs of the largest batches since activations were overwritten last
        self._closed_at: float | None = None  # first session since then
        self.prefilled = 0
        self.speed = UNMEASURED

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._scheduler.busy

    @property
    def tidy_due(self) -> bool:
        """Whether activations of a closed session may still be in llama.cpp's buffers, and some stream has room to run over
        them: a free one, or one whose context is not almost full."""
        rows, _ = self._traces
        _, held = self._scheduler.emptiest
        return self._closed_at is not None and rows > 0 and held + max(rows, 2) <= self._context.stream_tokens

    def open(self) -> int:
        """Claim a stream.

        Raises:
            NoFreeStream: If all are open.
        """
        return self._scheduler.open()

    def start(
        self,
        stream: int,
        prompt: Sequence[int],
        sampling: Sampling,
        like: int | None = None,
        shared: int = 0,
    ) -> None:
        """Begin an answer; only what the stream's KV cache does not hold of the prompt will be prefilled.

        Args:
            stream: An open one.
            prompt: The whole conversation.
            sampling: How to choose tokens.
            like: Another stream of the same session that was given the same prompt; it is read once for both.
            shared: Tokens at the prompt's beginning that may be copied from whichever stream holds them.

        Raises:
            StreamBusy, RefusedError, ContextOverflow: See `Scheduler.begin`.
        """
        if self._layout.extended or self._layout.transposed:
            like, shared = None, 0  # a part of such a state cannot be copied
        kept = self._scheduler.begin(stream, prompt, sampling.max_tokens, lookup=sampling.lookup, like=like)
        self._context.truncate(stream, kept)
        if like is not None:
            source, cells = like, self._scheduler.shared(stream, like)
        else:
            source, cells = self._scheduler.source(stream, shared)
        if cells:
            self._copy(parse_state(self._context.read_state(source)), stream, cells)
        strips = self._vocabulary.strips_space(prompt)
        text = AnswerText((*sampling.stop, *self._stops), strip_space=strips)
        sampler = Sampler(sampling, self._context.n_vocab)
        constraint = self._constraint(sampling, skip_space=strips)
        self._answers[stream] = _Answer(sampler, text, self._logprobs(sampling), constraint)

    def cancel(self, stream: int) -> None:
        """End an answer without a further piece. The KV cache keeps what it has, for the session's next turn."""
        answer = self._answers.pop(stream, None)
        if answer is not None:
            answer.close()
            self._scheduler.end(stream)

    def close(self, stream: int) -> Erased:
        """End a session: cancel, overwrite, read back, free the stream.

        A stream that does not read back as zero stays taken. What is reported is the cells of the session's tokens, whatever
        else was overwritten beyond them: it ends in a receipt, which must not tell what was guessed.

        Raises:
            StreamBusy: If it is not open.
            EngineFailed: If llama.cpp refuses a step.
        """
        held = self._scheduler.stream(stream)
        self.cancel(stream)
        erased = erase(self._context, self._layout, stream, max(held.high_water, held.longest))
        erased = replace(erased, bytes=held.longest * self._layout.cell_bytes)
        self._context.wipe_logits()
        self._closed_at = self._closed_at or perf_counter()
        if erased.verified:
            self._scheduler.close(stream)
        else:
            self._scheduler.stream(stream).wipe()
        return erased

    def tidy(self, pending: Callable[[], bool] | None = None) -> None:
        """Run a batch of nothing over the activations of closed sessions, while nothing else runs.

        Args:
            pending: Whether somebody waits already. The batch then makes way for them, and for whoever calls `interrupt`
                meanwhile, and is due again; but not for ever. None: it runs to its end.

        Raises:
            EngineFailed: If llama.cpp fails.
        """
        overdue = self._closed_at is not None and perf_counter() - self._closed_at > _TIDY_LATEST_S
        if pending is None or overdue:
            self._overwrite_activations()
            return
        with contextlib.suppress(BrokenOff), self._context.interruptible():
            if not pending():
                self._overwrite_activations()

    def interrupt(self) -> None:
        """Somebody waits: a `tidy` that runs makes way. The one method that may be called from any thread."""
        self._context.interrupt()

    def step(self, early: Callable[[Pieces], None] | None = None) -> Pieces:
        """Decode the next token of every answer in progress, and guesses if they pay, then one chunk of a prompt.

        Args:
            early: Is given the pieces of the first before the second begins, which may take long.

        Returns:
            The new pieces that `early` was not given, each with its stream.

        Raises:
            EngineFailed: If llama.cpp fails. Then no stream's cache can be relied on.
        """
        step = self._scheduler.plan(self.speed)
        pieces: Pieces = []
        began = perf_counter()
        if step.decode:
            pieces = self._decode(step)
            decoded = perf_counter()
            self.speed = self.speed.decoded(decoded - began, len(step.rows) * (1 + step.guessed))
            began = decoded
        if step.chunk is not None:
            if early is not None and pieces:
                early(pieces)
                pieces = []
            pieces += self._prefill(step.chunk)
            self.speed = self.speed.prefilled(step.chunk.stop - step.chunk.start, perf_counter() - began)
        return pieces

    def close_all(self) -> None:
        """Close every open stream."""
        for stream in self._scheduler.held:
            self.close(stream)

    def _overwrite_activations(self) -> None:
        rows, outputs = self._traces
        stream, held = self._scheduler.emptiest
        cells = held + max(rows, 2)
        self._scheduler.announce(stream, cells)
        overwrite_activations(self._context, stream, held, rows, outputs)
        self._traces, self._closed_at = (0, 0), None
        if stream in self._scheduler.free:  # so that the end of the next session need not overwrite these too
            if not erase(self._context, self._layout, stream, cells).verified:
                raise EngineFailed("the KV cache does not read back as zero")
            self._scheduler.cleaned(stream)

    def _decode(self, step: Step) -> list[tuple[int, Piece]]:
        if step.guessed:
            return self._decode_guesses(step)
        scheduler, fillers = self._scheduler, step.fillers
        rows = [scheduler.row(stream) for stream in step.rows]
        outputs = [row for row, stream in enumerate(step.rows) if stream not in fillers]
        for stream, (_, position) in zip(step.rows, rows, strict=True):
            scheduler.announce(stream, position + 1)
        tokens, positions = zip(*rows, strict=True)
        self._run(tokens, positions, step.rows, outputs)
        for stream, position in zip(step.rows, positions, strict=True):
            if stream in fillers:
                self._context.truncate(stream, position)
            else:
                scheduler.advance(stream, position + 1)
        pieces = []
        for place, (row, stream) in enumerate(zip(outputs, step.decode, strict=True)):
            token, new = self._next(stream, row)
            pieces += new
            if step.guesses and step.guesses[place]:
                scheduler.compare(stream, step.guesses[place].start, token)
        return pieces

    def _decode_guesses(self, step: Step) -> list[tuple[int, Piece]]:
        """Decode each stream's token and guesses behind it; keep those guesses that are what is chosen."""
        scheduler, width = self._scheduler, 1 + step.guessed
        tokens: list[int] = []
        positions: list[int] = []
        streams: list[int] = []
        for stream, guess in zip(step.decode, step.guesses, strict=True):
            token, position = scheduler.row(stream)
            scheduler.announce(stream, position + width)
            tokens += [
                token,
                *scheduler.stream(stream).tokens[guess.start : guess.start + step.guessed].tolist(),
            ]
            positions += range(position, position + width)
            streams += [stream] * width
        self._run(tokens, positions, streams, range(len(tokens)))
        pieces = []
        for place, (stream, guess) in enumerate(zip(step.decode, step.guesses, strict=True)):
            first = place * width
            for row in range(first, first + width):
                scheduler.advance(stream, positions[row] + 1)
                chosen, new = self._next(stream, row)
                pieces += new
                if row + 1 == first + width:
                    break
                if not scheduler.compare(stream, guess[row - first], chosen) or stream not in self._answers:
                    break
            self._context.truncate(stream, scheduler.stream(stream).cached)
        return pieces

    def _prefill(self, chunk: Chunk) -> list[tuple[int, Piece]]:
        tokens = self._scheduler.stream(chunk.stream).tokens[chunk.start : chunk.stop].tolist()
        count = len(tokens)
        outputs = [count - 1] if chunk.last else []
        self._scheduler.announce(chunk.stream, chunk.stop)
        self._run(tokens, range(chunk.start, chunk.stop), [chunk.stream] * count, outputs)
        self._scheduler.advance(chunk.stream, chunk.stop)
        self.prefilled += count
        return self._begin_answers(chunk.stream, count - 1) if chunk.last else []

    def _begin_answers(self, stream: int, row: int) -> list[tuple[int, Piece]]:
        """Choose the first token of a stream, and of those that had the same prompt read, from the same logits."""
        followers = self._scheduler.followers(stream)
        if not followers:
            return self._next(stream, row)[1]
        logits = self._context.logits(row)
        kept = logits.copy()  # what chooses a token may change the row
        state = parse_state(self._context.read_state(stream))
        _, pieces = self._next(stream, row)
        for follower in followers:
            self._copy(state, follower, state.cells)
            logits[:] = kept
            pieces += self._next(follower, row)[1]
        kept.fill(0)
        return pieces

    def _copy(self, state: State, stream: int, cells: int) -> None:
        self._scheduler.announce(stream, cells)
        self._context.write_state(stream, render_copy(state, stream, cells))
        self._scheduler.adopt(stream, cells)

    def _run(
        self, tokens: Sequence[int], positions: Sequence[int], streams: Sequence[int], outputs: Sequence[int]
    ) -> None:
        rows, most_outputs = self._traces
        self._traces = max(rows, len(tokens)), max(most_outputs, len(outputs))
        self._context.decode(tokens, positions, streams, outputs)

    def _next(self, stream: int, row: int) -> tuple[int | None, list[tuple[int, Piece]]]:
        """Choose a stream's next token; return it, and its piece if there is something to say."""
        answer = self._answers[stream]
        token = answer.choose(self._context.logits(row))
        finish: Literal["stop", "length"] | None = None
        text = ""
        if token is None:
            finish = "length"
        else:
            answer.unreported += 1
            if self._scheduler.append(stream, token):
                finish = "length"
            if token in self._stop_tokens:
                finish = "stop"
            else:
                text = answer.read(token, self._vocabulary.pieces[token])
            if answer.complete:
                finish = "stop"
        if finish:
            text += answer.text.finish()
        if answer.text.stopped:
            finish = "stop"
        if not text and not finish:
            return token, []
        piece = Piece(text, answer.unreported, finish, answer.released(text, ended=finish is not None))
        answer.unreported = 0
        if finish:
            self.cancel(stream)
        return token, [(stream, piece)]

    def _constraint(self, sampling: Sampling, *, skip_space: bool) -> Constraint | None:
        if sampling.grammar is None:
            return None
        vocabulary = self._vocabulary
        return Constraint(
            sampling.grammar,
            vocabulary.pieces,
            vocabulary.first_bytes,
            self._stop_tokens,
            skip_space=skip_space,
        )

    def _logprobs(self, sampling: Sampling) -> Logprobs | None:
        if sampling.logprobs is None:
            return None
        return Logprobs(sampling.logprobs, self._vocabulary.describe, self._context.n_vocab)

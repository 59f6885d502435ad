"""One engine step at a time, on the calling thread: schedule, decode, sample, detokenise. And the erase.

What is overwritten when a stream closes: its KV cells, its tokens, the logits; its sampler is freed. What cannot be:
Python strings and integers that passed through (they go with the process), llama.cpp's own copy of the last batch's
token ids and the activations in its compute buffers, which have no address for us; a batch of nothing runs over them
as soon as nobody is waiting for an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inference.engine.erase import Erased, erase, overwrite_activations
from inference.engine.sampling import Sampling
from inference.engine.scheduler import Chunk, Scheduler
from inference.engine.state_blob import Layout
from inference.engine.text import AnswerText
from inference.engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    from inference.engine.llama import Context, Sampler


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: New text, may be empty.
        tokens: Tokens generated since the last piece, the ending one included.
        finish: Why the answer ended, None while it goes on.
    """

    text: str
    tokens: int
    finish: Literal["stop", "length"] | None


@dataclass
class _Answer:
    """An answer in progress."""

    sampler: Sampler
    text: AnswerText
    unreported: int = 0


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
        self._closed_since = False
        self.prefilled = 0

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._scheduler.busy

    @property
    def tidy_due(self) -> bool:
        """Whether activations of a closed session may still be in llama.cpp's buffers."""
        return self._closed_since and self._traces != (0, 0)

    def open(self) -> int:
        """Claim a stream.

        Raises:
            NoFreeStream: If all are open.
        """
        if self.tidy_due and len(self._scheduler.free) == 1:
            self.tidy()  # it needs a free stream, and this is the last
        return self._scheduler.open()

    def start(self, stream: int, prompt: Sequence[int], sampling: Sampling) -> None:
        """Begin an answer; only what the stream's KV cache does not hold of the prompt will be prefilled.

        Raises:
            StreamBusy, RefusedError, ContextOverflow: See `Scheduler.begin`.
        """
        kept = self._scheduler.begin(stream, prompt, sampling.max_tokens)
        self._context.truncate(stream, kept)
        text = AnswerText((*sampling.stop, *self._stops), strip_space=self._vocabulary.strips_space(prompt))
        self._answers[stream] = _Answer(self._context.sampler(sampling), text)

    def cancel(self, stream: int) -> None:
        """End an answer without a further piece. The KV cache keeps what it has, for the session's next turn."""
        answer = self._answers.pop(stream, None)
        if answer is not None:
            answer.sampler.close()
            self._scheduler.end(stream)

    def close(self, stream: int) -> Erased:
        """End a session: cancel, overwrite, read back, free the stream.

        A stream that does not read back as zero stays taken.

        Raises:
            StreamBusy: If it is not open.
            EngineFailed: If llama.cpp refuses a step.
        """
        cells = self._scheduler.stream(stream).high_water
        self.cancel(stream)
        erased = erase(self._context, self._layout, stream, cells)
        self._context.wipe_logits()
        self._closed_since = True
        if erased.verified:
            self._scheduler.close(stream)
        else:
            self._scheduler.stream(stream).wipe()
        return erased

    def tidy(self) -> None:
        """Run a batch of nothing over the activations of closed sessions.

        Raises:
            EngineFailed: If llama.cpp fails.
        """
        rows, outputs = self._traces
        overwrite_activations(self._context, self._layout, self._scheduler.free[0], rows, outputs)
        self._traces, self._closed_since = (0, 0), False

    def step(self) -> list[tuple[int, Piece]]:
        """Decode one token of every answer in progress, then one chunk of a prompt; return the new pieces.

        Raises:
            EngineFailed: If llama.cpp fails. Then no stream's cache can be relied on.
        """
        step = self._scheduler.plan()
        pieces = self._decode(step.decode) if step.decode else []
        if step.chunk is not None:
            pieces += self._prefill(step.chunk)
        return pieces

    def close_all(self) -> None:
        """Close every open stream."""
        for stream in self._scheduler.held:
            self.close(stream)

    def _decode(self, streams: tuple[int, ...]) -> list[tuple[int, Piece]]:
        rows = [(stream, self._scheduler.stream(stream)) for stream in streams]
        tokens = [int(row.tokens[row.cached]) for _, row in rows]
        positions = [row.cached for _, row in rows]
        self._run(tokens, positions, streams, range(len(rows)))
        return [piece for row, stream in enumerate(streams) for piece in self._next(stream, row)]

    def _prefill(self, chunk: Chunk) -> list[tuple[int, Piece]]:
        tokens = self._scheduler.stream(chunk.stream).tokens[chunk.start : chunk.stop].tolist()
        count = len(tokens)
        outputs = [count - 1] if chunk.last else []
        self._run(tokens, range(chunk.start, chunk.stop), [chunk.stream] * count, outputs)
        self.prefilled += count
        return self._next(chunk.stream, count - 1) if chunk.last else []

    def _run(
        self, tokens: Sequence[int], positions: Sequence[int], streams: Sequence[int], outputs: Sequence[int]
    ) -> None:
        ends = {stream: position + 1 for stream, position in zip(streams, positions, strict=True)}
        for stream, end in ends.items():
            self._scheduler.announce(stream, end)
        rows, most_outputs = self._traces
        self._traces = max(rows, len(tokens)), max(most_outputs, len(outputs))
        self._context.decode(tokens, positions, streams, outputs)
        for stream, end in ends.items():
            self._scheduler.advance(stream, end)

    def _next(self, stream: int, row: int) -> list[tuple[int, Piece]]:
        """Sample a token for a stream; return its piece if there is something to say."""
        answer = self._answers[stream]
        token = answer.sampler.sample(row)
        answer.unreported += 1
        full = self._scheduler.append(stream, token)
        finish: Literal["stop", "length"] | None = "length" if full else None
        text = ""
        if token in self._stop_tokens:
            finish = "stop"
        else:
            text = answer.text.feed(self._vocabulary.pieces[token])
        if finish:
            text += answer.text.finish()
        if answer.text.stopped:
            finish = "stop"
        if not text and not finish:
            return []
        piece = Piece(text, answer.unreported, finish)
        answer.unreported = 0
        if finish:
            self.cancel(stream)
        return [(stream, piece)]

"""Overwriting what a session left in the KV cache, and the proof that it works on this model and this build.

llama.cpp's seq_rm forgets cells and leaves their bytes. So a stream is overwritten by loading a state of zeros over
all cells that it ever used, which is read back and compared before the stream is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.engine.errors import EngineFailed
from inference.engine.state_blob import Layout, parse_state, render_zero_state

if TYPE_CHECKING:
    from inference.engine.llama import Context

_PROOF_CELLS = 48
_PROOF_KEPT = 8


@dataclass(frozen=True)
class Erased:
    """What was overwritten.

    Attributes:
        bytes: KV bytes overwritten, keys and values of all layers; of a session, those of its tokens.
        verified: They were read back and all of them were zero.
    """

    bytes: int
    verified: bool


def erase(context: Context, layout: Layout, stream: int, cells: int) -> Erased:
    """Overwrite the first `cells` cells of a stream, read them back, forget the stream.

    Cells and positions are the same thing here: a stream belongs to one sequence, which is only ever cut at its end,
    so `cells` is the longest that the sequence ever was. Reading back takes as much memory again for a moment.

    Raises:
        EngineFailed: If llama.cpp refuses a step.
    """
    if cells == 0:
        return Erased(0, verified=True)
    overwrite(context, layout, stream, cells)
    verified = is_zero(context, layout, stream, cells)
    context.truncate(stream, 0)
    return Erased(cells * layout.cell_bytes, verified)


def overwrite(context: Context, layout: Layout, stream: int, cells: int) -> None:
    """Put zeros into the first `cells` cells of a stream, which then belong to it."""
    context.write_state(stream, render_zero_state(layout, stream, cells))


def is_zero(context: Context, layout: Layout, stream: int, cells: int) -> bool:
    """Read a stream back; say whether it has exactly these cells and each of their bytes is zero."""
    state = parse_state(context.read_state(stream))
    return (
        state.layout == layout
        and state.cells == cells
        and not any(tensor.any() for tensor in state.tensors())
    )


def overwrite_activations(context: Context, stream: int, start: int, tokens: int, outputs: int) -> None:
    """Run batches of nothing behind what a stream holds, the first as large as the largest since the last time.

    It goes through the buffers that held activations of real tokens. They have no address in llama.cpp's interface,
    so this half of the erase is not verified here as the KV cache and the logits are; `appliance audit erasure` looks.
    The second batch has another shape: llama.cpp keeps a compute graph with the token ids of the first batch that it
    was built for, and takes it again for batches of the same shape (src/llama-graph.cpp, llm_graph_result::can_reuse).

    Args:
        context: Nothing else runs on it.
        stream: Has room for `tokens`, and for two, from `start` on; it is as it was afterwards, but for the bytes of those cells.
        start: Tokens that it holds.
        tokens, outputs: Rows of the first batch, and how many of them have logits.

    Raises:
        BrokenOff: As `Context.decode`.
    """
    for count in (tokens, 1 if tokens > 1 else 2):
        try:
            _decode_filler(context, stream, range(start, start + count), outputs)
        finally:
            context.truncate(stream, start)
    context.wipe_logits()


def prove(context: Context) -> Layout:
    """Show on the first and the last stream that erasing erases; return the layout of this context's states.

    1. Decode tokens; every tensor of the state must hold something (else the check below would see nothing).
    2. Cut the sequence short: cells beyond its end keep their bytes, and must be reached too.
    3. Overwrite; read back by the same way as in 1; everything must be zero.
    4. Forget the stream.

    Raises:
        EngineFailed: If any of it is not so. The cell must not serve then.
    """
    for stream in sorted({0, context.streams - 1}):
        _decode_filler(context, stream, range(_PROOF_CELLS), 1)
        state = parse_state(context.read_state(stream))
        if state.cells != _PROOF_CELLS or not all(tensor.any() for tensor in state.tensors()):
            raise EngineFailed("erase self-test: decoding leaves no trace that could be checked")
        context.truncate(stream, _PROOF_KEPT)
        overwrite(context, state.layout, stream, _PROOF_CELLS)
        if not is_zero(context, state.layout, stream, _PROOF_CELLS):
            raise EngineFailed("erase self-test: the KV cache does not read back as zero")
        context.truncate(stream, 0)
    context.wipe_logits()
    return state.layout


def _decode_filler(context: Context, stream: int, positions: range, outputs: int) -> None:
    """Decode tokens that mean nothing, with logits for the last few."""
    count = len(positions)
    filler = [(index * 7919 + 1) % context.n_vocab for index in range(count)]
    context.decode(filler, positions, [stream] * count, range(count - min(outputs, count), count))

"""The bytes of one sequence's state in llama.cpp: a strict parser, and builders for a state of zeros and for a copy.

llama_state_seq_get_data and _set_data speak this format; it is llama.cpp's own, not a stable one, so everything here
refuses what it does not know, and the engine proves at load that this build still speaks it (`erase.prove`).
Little-endian, without padding:

    u32 magic 0xaf143cd8 · i32 sequence
    u32 n_stream, and per stream: u32 n_cells, and if that is not 0:
        per cell:   i32 position · u32 1 · [i32 x · i32 y · i32 token] · i32 sequence
        u32 v_transposed · u32 n_layer
        per layer:  i32 type · u64 row bytes · keys, a row per cell
        per layer:  values, as the keys; or transposed: i32 type · u32 element bytes · u32 rows · values

Only a sequence that owns its stream is understood: contiguous positions from 0 in one stream. Sliding-window and
recurrent models write further sections and are refused.

Source: llama.cpp 0c1e57098, src/llama-context.cpp (state_seq_write_data), src/llama-kv-cache.cpp (state_write).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.engine.errors import StateFormatError

MAGIC = 0xAF143CD8
_MAX_STREAMS = 256  # LLAMA_MAX_SEQ, src/llama-cparams.h
_MAX_LAYERS = 4096
_MAX_CELLS = 2**24
_MAX_CELL_BYTES = 2**24

Buffer = bytes | bytearray | memoryview | mmap.mmap


@dataclass(frozen=True)
class Tensor:
    """Keys or values of one layer.

    Attributes:
        header: The bytes that describe them, kept verbatim.
        cell_bytes: Payload of one cell, in bytes.
    """

    header: bytes
    cell_bytes: int


@dataclass(frozen=True)
class Layout:
    """What all states of one context have in common.

    Attributes:
        streams: n_stream of the context.
        extended: Cells carry a 2-D position and a token id (M-RoPE models).
        transposed: Values are stored transposed (flash attention off).
        layers: Layers with a KV cache.
        tensors: Keys of each layer, then values of each.
    """

    streams: int
    extended: bool
    transposed: bool
    layers: int
    tensors: tuple[Tensor, ...]

    @property
    def cell_bytes(self) -> int:
        """KV bytes of one token."""
        return sum(tensor.cell_bytes for tensor in self.tensors)

    def meta_dtype(self) -> np.dtype[np.void]:
        """One cell's metadata as a packed record."""
        extension = [("x", "<i4"), ("y", "<i4"), ("token", "<i4")] if self.extended else []
        return np.dtype([("position", "<i4"), ("n_sequences", "<u4"), *extension, ("sequence", "<i4")])

    def payload(self, stream: int, cells: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of each tensor's payload in the state of a stream with `cells` cells."""
        offset = 8 + 4 + 4 * (stream + 1) + cells * self.meta_dtype().itemsize + 8
        for tensor in self.tensors:
            offset += len(tensor.header)
            yield offset, cells * tensor.cell_bytes
            offset += cells * tensor.cell_bytes

    def size(self, cells: int) -> int:
        """Length of a state of `cells` cells, in bytes."""
        offset, length = list(self.payload(self.streams - 1, cells))[-1]
        return offset + length


@dataclass(frozen=True)
class State:
    """A parsed state. `data` is the buffer it came in; nothing is copied."""

    layout: Layout
    stream: int
    cells: int
    data: Buffer

    def tensors(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the payload of each tensor, as bytes."""
        for offset, length in self.layout.payload(self.stream, self.cells):
            yield np.frombuffer(self.data, np.uint8, length, offset)


def parse_state(data: Buffer) -> State:
    """Parse the state of one sequence that holds at least one cell.

    Raises:
        StateFormatError: If a single byte of the frame is not as described above.
    """
    found = [state for extended in (False, True) if (state := _attempt(data, extended=extended))]
    if len(found) != 1:
        raise StateFormatError("the sequence state is not in the known format")
    return found[0]


def _attempt(data: Buffer, *, extended: bool) -> State | None:
    try:
        return _Parser(data).state(extended=extended)
    except (struct.error, ValueError):
        return None


def render_zero_state(layout: Layout, stream: int, cells: int) -> mmap.mmap:
    """Return a state of `cells` cells whose whole payload is zero.

    The payload is never touched, so it costs address space but no memory.

    Raises:
        StateFormatError: If stream or cells are out of range.
    """
    if not (0 <= stream < layout.streams and 0 < cells <= _MAX_CELLS):
        raise StateFormatError("no such state")
    return _render(layout, stream, cells)


def render_copy(state: State, stream: int, cells: int) -> mmap.mmap:
    """Return a state for another stream with the first `cells` cells of this one.

    Raises:
        StateFormatError: If stream or cells are out of range, cells carry more than a position, or values do not lie by
            cell and some are left out.
    """
    layout = state.layout
    if not (0 <= stream < layout.streams and 0 < cells <= state.cells) or layout.extended:
        raise StateFormatError("no such state")
    if layout.transposed and cells < state.cells:
        raise StateFormatError("transposed values cannot be cut")
    data = _render(layout, stream, cells)
    for (place, length), payload in zip(layout.payload(stream, cells), state.tensors(), strict=True):
        np.frombuffer(data, np.uint8, length, place)[:] = payload[:length]
    return data


def _render(layout: Layout, stream: int, cells: int) -> mmap.mmap:
    data = fresh_memory(layout.size(cells))
    counts = [cells if index == stream else 0 for index in range(layout.streams)]
    data.write(struct.pack("<IiI", MAGIC, stream, layout.streams))
    data.write(struct.pack(f"<{stream + 1}I", *counts[: stream + 1]))
    meta = np.zeros(cells, layout.meta_dtype())
    meta["position"] = np.arange(cells)
    meta["n_sequences"] = 1
    meta["sequence"] = stream
    data.write(meta.tobytes())
    data.write(struct.pack("<II", layout.transposed, layout.layers))
    for tensor in layout.tensors:
        data.write(tensor.header)
        data.seek(cells * tensor.cell_bytes, 1)
    data.write(struct.pack(f"<{layout.streams - stream - 1}I", *counts[stream + 1 :]))
    return data


def fresh_memory(size: int) -> mmap.mmap:
    """Return zeroed memory of its own, outside the heap: the kernel takes it back when it is dropped."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _Parser:
    """A cursor over the bytes; raises ValueError or struct.error, mapped by `parse_state`."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._offset = 0

    def state(self, *, extended: bool) -> State:
        magic, stream, streams = self._take("<IiI")
        _demand(magic == MAGIC and 0 <= stream < streams <= _MAX_STREAMS)
        counts_before = self._take(f"<{stream + 1}I")
        cells = counts_before[stream]
        _demand(not any(counts_before[:stream]) and 0 < cells <= _MAX_CELLS)
        self._meta(Layout(streams, extended, transposed=False, layers=0, tensors=()), stream, cells)
        transposed, layers = self._take("<II")
        _demand(transposed in {0, 1} and 0 < layers <= _MAX_LAYERS)
        tensors = [self._rows(cells) for _ in range(layers)]
        end = len(self._data) - 4 * (streams - stream - 1)
        if self._offset < end:  # models with latent attention keep no values
            value = self._columns if transposed else self._rows
            tensors += [value(cells) for _ in range(layers)]
        _demand(not any(self._take(f"<{streams - stream - 1}I")) and self._offset == len(self._data))
        layout = Layout(streams, extended, bool(transposed), layers, tuple(tensors))
        return State(layout, stream, cells, self._data)

    def _meta(self, layout: Layout, stream: int, cells: int) -> None:
        dtype = layout.meta_dtype()
        meta = np.frombuffer(self._data, dtype, cells, self._offset)
        self._offset += cells * dtype.itemsize
        _demand(bool((meta["position"] == np.arange(cells)).all()))
        _demand(bool((meta["n_sequences"] == 1).all() and (meta["sequence"] == stream).all()))

    def _rows(self, cells: int) -> Tensor:
        start = self._offset
        _kind, row_bytes = self._take("<iQ")
        return self._tensor(start, row_bytes, cells)

    def _columns(self, cells: int) -> Tensor:
        start = self._offset
        _kind, element_bytes, rows = self._take("<iII")
        return self._tensor(start, element_bytes * rows, cells)

    def _tensor(self, start: int, cell_bytes: int, cells: int) -> Tensor:
        header = bytes(self._data[start : self._offset])
        self._offset += cells * cell_bytes
        _demand(0 < cell_bytes <= _MAX_CELL_BYTES and self._offset <= len(self._data))
        return Tensor(header, cell_bytes)

    def _take(self, form: str) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack_from(form, self._data, self._offset)
        self._offset += struct.calcsize(form)
        return values


def _demand(condition: bool) -> None:
    if not condition:
        raise ValueError

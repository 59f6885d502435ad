"""The codec of llama.cpp's sequence state, against an encoder written from the C source."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.errors import StateFormatError
from inference.engine.state_blob import Layout, Tensor, parse_state, render_zero_state


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    layers = draw(st.integers(1, 4))
    transposed = draw(st.booleans())
    keys = [draw(st.integers(1, 64)) for _ in range(layers)]
    values = [draw(st.integers(1, 64)) for _ in range(layers)] if draw(st.booleans()) else []
    tensors = [Tensor(struct.pack("<iQ", 1, row), row) for row in keys]
    if transposed:
        tensors += [Tensor(struct.pack("<iII", 1, 2, rows), 2 * rows) for rows in values]
    else:
        tensors += [Tensor(struct.pack("<iQ", 8, row), row) for row in values]
    return Layout(draw(st.integers(1, 9)), draw(st.booleans()), transposed, layers, tuple(tensors))


@st.composite
def states(draw: st.DrawFn) -> tuple[Layout, int, int]:
    layout = draw(layouts())
    return layout, draw(st.integers(0, layout.streams - 1)), draw(st.integers(1, 40))


def written_by_llama_cpp(layout: Layout, stream: int, cells: int, fill: int) -> bytes:
    """Follow llama_kv_cache::state_write line by line."""
    out = struct.pack("<IiI", 0xAF143CD8, stream, layout.streams)
    for index in range(layout.streams):
        out += struct.pack("<I", cells if index == stream else 0)
        if index != stream:
            continue
        for position in range(cells):
            out += struct.pack("<iI", position, 1)
            out += struct.pack("<iii", 3, 4, 5) if layout.extended else b""
            out += struct.pack("<i", stream)
        out += struct.pack("<II", layout.transposed, layout.layers)
        for tensor in layout.tensors:
            out += tensor.header + bytes([fill]) * (cells * tensor.cell_bytes)
    return out


@given(states(), st.integers(0, 255))
def test_what_llama_cpp_writes_is_parsed_into_the_layout_it_was_written_from(
    state: tuple[Layout, int, int], fill: int
) -> None:
    layout, stream, cells = state
    parsed = parse_state(written_by_llama_cpp(layout, stream, cells, fill))
    assert (parsed.layout, parsed.stream, parsed.cells) == state
    payload = list(parsed.tensors())
    assert sum(map(len, payload)) == cells * layout.cell_bytes
    assert all((tensor == fill).all() for tensor in payload)


@given(states())
def test_a_zero_state_is_what_llama_cpp_would_write_for_zeroed_cells(
    state: tuple[Layout, int, int],
) -> None:
    layout, stream, cells = state
    rendered = render_zero_state(layout, stream, cells)
    expected = np.frombuffer(written_by_llama_cpp(layout, stream, cells, 0), np.uint8).copy()
    if layout.extended:  # the only difference: 2-D positions and token ids are zero too
        start = 12 + 4 * (stream + 1)
        cell = expected[start : start + 24 * cells].reshape(cells, 24)
        cell[:, 8:20] = 0
    assert rendered[:] == expected.tobytes()
    assert parse_state(rendered).layout == layout


@given(states(), st.data())
def test_a_changed_frame_a_cut_and_a_tail_are_refused(
    state: tuple[Layout, int, int], data: st.DataObject
) -> None:
    layout, stream, cells = state
    blob = written_by_llama_cpp(layout, stream, cells, 7)
    with pytest.raises(StateFormatError):
        parse_state(blob + b"\0")
    with pytest.raises(StateFormatError):
        parse_state(blob[: data.draw(st.integers(0, len(blob) - 1))])
    position = (
        12 + 4 * (stream + 1) + data.draw(st.sampled_from((0, 4)))
    )  # of the first cell: position, count
    changed = blob[:position] + bytes([blob[position] + 1]) + blob[position + 1 :]
    with pytest.raises(StateFormatError):
        parse_state(changed)


@given(st.binary(max_size=200))
def test_any_bytes_raise_our_error_and_no_other(data: bytes) -> None:
    with pytest.raises(StateFormatError):
        parse_state(data)


@given(states(), st.data())
def test_one_byte_changed_anywhere_either_parses_or_raises_our_error(
    state: tuple[Layout, int, int], data: st.DataObject
) -> None:
    blob = bytearray(written_by_llama_cpp(*state, 0))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(StateFormatError):
        parse_state(blob)


def test_states_that_cannot_exist_are_not_rendered() -> None:
    layout = Layout(2, extended=False, transposed=False, layers=1, tensors=(Tensor(b"", 1),))
    for stream, cells in ((2, 1), (-1, 1), (0, 0)):
        with pytest.raises(StateFormatError):
            render_zero_state(layout, stream, cells)

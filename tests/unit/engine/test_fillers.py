"""Filler rows on the synthetic model: an idle session computes the same bits afterwards, and nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from engine_bench import Bench
from numpy.typing import NDArray

from inference.engine import scheduler
from inference.engine.errors import EngineFailed
from inference.engine.sampling import Sampling
from inference.engine.state_blob import parse_state

pytestmark = pytest.mark.engine

GREEDY = Sampling(max_tokens=12, temperature=0)
Logits = list[NDArray[np.float32]]
LENDER = 1


def recorded(bench: Bench, stream: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> Logits:
    """Return the logits that each token of a stream was chosen from while `run` ran."""
    logits: Logits = []
    decode = bench.context.decode

    def recording(tokens: object, positions: object, streams: list[int], outputs: list[int]) -> None:
        decode(tokens, positions, streams, outputs)
        logits.extend(bench.context.logits(row).copy() for row in outputs if streams[row] == stream)

    with monkeypatch.context() as patch:
        patch.setattr(bench.context, "decode", recording)
        run()
    return logits


def conversation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Bench], object] = lambda _: None
) -> tuple[Logits, int]:
    """A session has two turns, alone in its batches; between them its neighbours on both sides are answered.

    Args:
        bench: Fresh.
        monkeypatch: To see logits.
        meanwhile: Called before the second turn.

    Returns:
        Logits of its second turn, and the rows of the largest batch between the turns.
    """
    for stream in range(3):
        assert bench.runner.open() == stream
    first = bench.prompt("where is the bridge over the river")
    answer = bench.answer(LENDER, first, GREEDY)
    held = bench.scheduler.stream(LENDER).cached
    tokens = bench.scheduler.stream(LENDER).tokens.copy()
    bench.runner._traces = (0, 0)
    for stream in (0, 2):
        bench.runner.start(stream, bench.prompt("hi"), GREEDY)
        bench.runner.step()
    bench.runner._traces = (0, 0)
    bench.drain()
    rows = bench.runner._traces[0]
    assert bench.scheduler.stream(LENDER).cached == held
    assert (bench.scheduler.stream(LENDER).tokens == tokens).all()
    meanwhile(bench)
    second = bench.prompt("where is the bridge over the river", answer, "and then")
    logits = recorded(bench, LENDER, monkeypatch, lambda: bench.answer(LENDER, second, GREEDY))
    return logits, rows


def test_an_idle_session_that_lent_rows_computes_the_same_bits_as_an_undisturbed_one(
    make_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    lent, rows = conversation(bench := make_bench(), monkeypatch)
    assert rows == 3
    bench.runner.close_all()
    monkeypatch.setattr(scheduler, "filled", lambda decoding, *_: tuple(decoding))
    undisturbed, rows = conversation(make_bench(), monkeypatch)
    assert rows == 2
    assert len(lent) == GREEDY.max_tokens
    assert all(np.array_equal(left, right) for left, right in zip(lent, undisturbed, strict=True))


def flip_one_bit(bench: Bench) -> None:
    """Change one bit of one key of the lender's last cell."""
    data = bench.context.read_state(LENDER)
    offset, length = next(bench.layout.payload(LENDER, parse_state(data).cells))
    data[offset + length - 1] ^= 0x20
    bench.context.write_state(LENDER, data)


def test_the_check_for_equal_bits_sees_one_that_differs(
    make_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control."""
    undisturbed, _ = conversation(bench := make_bench(), monkeypatch)
    bench.runner.close_all()
    disturbed, _ = conversation(make_bench(), monkeypatch, flip_one_bit)
    assert not np.array_equal(undisturbed[0], disturbed[0])


def test_llama_cpp_itself_refuses_a_filler_whose_cell_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = bench.context.truncate
    monkeypatch.setattr(
        bench.context, "truncate", lambda stream, length: keep(stream, length + (stream == LENDER))
    )
    with pytest.raises(EngineFailed):
        conversation(bench, monkeypatch)


def test_the_cell_of_a_filler_is_forgotten_at_once_and_erased_with_the_stream(bench: Bench) -> None:
    for stream in range(3):
        assert bench.runner.open() == stream
    bench.answer(LENDER, bench.prompt("hello"), GREEDY)
    held = bench.scheduler.stream(LENDER).cached
    for stream in (0, 2):
        bench.runner.start(stream, bench.prompt("hi"), GREEDY)
    bench.drain()
    assert parse_state(bench.context.read_state(LENDER)).cells == held
    erased = bench.runner.close(LENDER)
    assert erased.verified
    assert erased.bytes == (held + 1) * bench.layout.cell_bytes


def test_a_free_stream_that_lent_rows_is_empty_for_whoever_opens_it(bench: Bench) -> None:
    for stream in range(3):
        assert bench.runner.open() == stream
    bench.runner.close(LENDER)
    expected = bench.answer(0, bench.prompt("hello there"), GREEDY)
    for stream in (0, 2):
        bench.runner.start(stream, bench.prompt("hi"), GREEDY)
    bench.drain()
    assert bench.runner.open() == LENDER
    assert bench.answer(LENDER, bench.prompt("hello there"), GREEDY) == expected
    assert bench.runner.close(LENDER).verified

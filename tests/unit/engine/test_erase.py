"""A closed stream leaves no byte of its cells; and each check here is shown to be able to fail."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_bench import Bench
from numpy.typing import NDArray

from inference.engine import erase as erasing
from inference.engine import runner
from inference.engine.errors import EngineFailed
from inference.engine.llama import Context
from inference.engine.sampling import Sampling
from inference.engine.state_blob import parse_state

pytestmark = pytest.mark.engine

PROMPT = "the secret word is mountain and the river knows it " * 4
MASK = 0x5A
Rows = NDArray[np.uint8]


def masked_rows(bench: Bench, stream: int) -> Rows:
    """Return rows of keys and values of every layer, masked, so that this copy is not what a scan finds."""
    state = parse_state(bench.context.read_state(stream))
    # Not the first rows: every conversation begins with the same tokens, and other tests leave theirs.
    # Contiguous and without a cast: otherwise numpy computes in a buffer, which it frees with the plain bytes in it.
    masked = [(tensor ^ np.uint8(MASK)).reshape(state.cells, -1)[8::19] for tensor in state.tensors()]
    return np.concatenate(masked)


def found_in_memory(rows: Rows) -> int:
    """Return how many rows are in this process's memory, looked at from another process."""
    scanner = Path(__file__).with_name("engine_memory_scan.py")
    result = subprocess.run(
        [sys.executable, scanner, str(os.getpid()), str(MASK)],
        input="\n".join(row.tobytes().hex() for row in rows),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout)


def filled(bench: Bench, prompt: str = PROMPT) -> int:
    stream = bench.runner.open()
    bench.answer(stream, bench.prompt(prompt), Sampling(max_tokens=20, temperature=0))
    return stream


def test_a_stream_holds_content_until_it_is_closed_and_zeros_after(bench: Bench) -> None:
    stream = filled(bench)
    tokens = bench.scheduler.stream(stream).longest
    before = parse_state(bench.context.read_state(stream))
    assert all(tensor.any() for tensor in before.tensors())
    erased = bench.runner.close(stream)
    assert erased.verified
    assert erased.bytes == tokens * bench.layout.cell_bytes
    # The cells again, as whoever gets the stream next would find them if it could look before writing.
    bench.context.decode([1], [0], [stream], [])
    assert parse_state(bench.context.read_state(stream)).cells == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="reads another process's memory")
def test_no_key_row_of_a_closed_stream_is_left_anywhere_in_memory(bench: Bench) -> None:
    stream = filled(bench, "only this test speaks of a wooden bridge to the island " * 4)
    rows = masked_rows(bench, stream)
    assert found_in_memory(rows) == len(rows)  # positive control: they can be found
    # A shorter turn cuts the sequence; the cells behind its end keep their bytes until the stream is closed.
    bench.answer(stream, bench.prompt("hello"), Sampling(max_tokens=2, temperature=0))
    assert found_in_memory(rows) > len(rows) / 2
    assert bench.runner.close(stream).verified
    gc.collect()  # the state that this test itself read above
    assert found_in_memory(rows) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="reads another process's memory")
def test_the_memory_test_fails_where_streams_are_only_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = filled(bench)
    rows = masked_rows(bench, stream)
    monkeypatch.setattr(erasing, "overwrite", lambda *_: None)
    assert not bench.runner.close(stream).verified
    assert found_in_memory(rows) == len(rows)


def test_closing_one_stream_leaves_the_others_as_they_are(bench: Bench) -> None:
    first, second = bench.runner.open(), bench.runner.open()
    sampling = Sampling(max_tokens=10, temperature=0)
    for stream in (first, second):
        bench.answer(stream, bench.prompt(PROMPT), sampling)
    before = bench.context.read_state(second)[:]
    bench.runner.close(first)
    assert bench.context.read_state(second)[:] == before


def test_an_erase_that_does_nothing_is_not_verified(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = filled(bench)
    monkeypatch.setattr(erasing, "overwrite", lambda *_: None)
    assert not bench.runner.close(stream).verified
    assert stream in bench.scheduler.held  # nobody else gets it


def test_an_erase_that_forgets_one_cell_is_not_verified(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = filled(bench)
    honest = erasing.overwrite
    monkeypatch.setattr(erasing, "overwrite", lambda c, layout, s, cells: honest(c, layout, s, cells - 1))
    assert not bench.runner.close(stream).verified


def test_the_self_test_refuses_to_serve_where_erasing_does_nothing(
    make_bench: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bench()  # positive control: it passes as it is
    monkeypatch.setattr(erasing, "overwrite", lambda *_: None)
    with pytest.raises(EngineFailed, match="does not read back as zero"):
        make_bench()


def test_the_self_test_refuses_to_serve_where_it_could_see_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = erasing.prove(context)
    honest = erasing.overwrite
    real = context.decode

    def decode_and_wipe(tokens: list[int], positions: range, streams: list[int], outputs: list[int]) -> None:
        real(tokens, positions, streams, outputs)
        honest(context, layout, streams[0], len(tokens))

    monkeypatch.setattr(context, "decode", decode_and_wipe)
    with pytest.raises(EngineFailed, match="no trace"):
        erasing.prove(context)


def test_logits_are_overwritten_when_a_stream_closes(bench: Bench) -> None:
    stream = filled(bench)
    assert bench.context.logits(0).any()
    bench.runner.close(stream)
    assert not bench.context.logits(0).any()


def test_activations_are_run_over_on_a_free_stream_or_behind_an_idle_session(bench: Bench) -> None:
    assert not bench.runner.tidy_due
    stream = filled(bench)
    assert not bench.runner.tidy_due  # its session goes on
    bench.runner.close(stream)
    assert bench.runner.tidy_due
    bench.runner.tidy()
    assert not bench.runner.tidy_due
    bench.runner.close(filled(bench))
    opened = [bench.runner.open() for _ in range(4)]
    assert bench.runner.tidy_due
    bench.runner.tidy()
    assert not bench.runner.tidy_due
    assert opened == [0, 1, 2, 3]


def test_running_over_activations_leaves_an_idle_session_as_it_was(bench: Bench) -> None:
    closed, *kept = [filled(bench) for _ in range(4)]
    before = [masked_rows(bench, stream) for stream in kept]
    bench.runner.close(closed)
    bench.runner.open()  # no stream is free
    bench.runner.tidy()
    assert not bench.runner.tidy_due
    assert all(
        np.array_equal(masked_rows(bench, stream), rows) for stream, rows in zip(kept, before, strict=True)
    )
    assert all(bench.runner.close(stream).verified for stream in kept)


def test_overwriting_activations_makes_way_and_is_done_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.runner.close(filled(bench))
    bench.runner.tidy(lambda: True)
    assert bench.runner.tidy_due  # somebody waited already
    real = bench.context.decode

    def interrupted(*batch: Any) -> None:
        bench.runner.interrupt()
        real(*batch)

    with monkeypatch.context() as patched:
        patched.setattr(bench.context, "decode", interrupted)
        bench.runner.tidy(lambda: False)
        assert bench.runner.tidy_due  # somebody came meanwhile
        answered = filled(bench)  # an answer is not broken off by that
    bench.runner.close(answered)
    bench.runner.tidy(lambda: False)
    assert not bench.runner.tidy_due


def test_overwriting_activations_does_not_make_way_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.runner.close(filled(bench))
    monkeypatch.setattr(runner, "_TIDY_LATEST_S", 0.0)
    bench.runner.tidy(lambda: True)
    assert not bench.runner.tidy_due


def test_a_stream_that_was_never_used_needs_no_erase(bench: Bench) -> None:
    erased = bench.runner.close(bench.runner.open())
    assert (erased.bytes, erased.verified) == (0, True)

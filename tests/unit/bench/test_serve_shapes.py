"""Synthetic models of real shapes: the same bytes every time, words without end, and the sizes they are named for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.bench.shapes import CONTEXT_TOKENS, SHAPES, Shape, find_or_write, shape_manifest, write_shape
from appliance.core.pin import Launch
from inference.engine import llama
from inference.engine.sampling import Sampling
from inference.engine.vocabulary import Vocabulary

SMALL = Shape("small", "nothing", 2, 128, 4, 2, 256, 6000)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "small.gguf"
    write_shape(path, SMALL, lambda _: None)
    return path


def test_a_shape_always_gives_the_same_bytes(weights: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.gguf", tmp_path / "other.gguf"
    write_shape(again, SMALL, lambda _: None)
    write_shape(other, SMALL, lambda _: None, seed=2)
    assert again.read_bytes() == weights.read_bytes()
    assert other.read_bytes() != weights.read_bytes()


@pytest.mark.parametrize(("name", "kib"), [("135m", 22.5), ("500m", 12), ("1b", 32)])
def test_a_token_of_context_costs_what_it_costs_in_the_model_it_is_like(name: str, kib: float) -> None:
    assert SHAPES[name].kv_bytes == kib * 1024


def test_a_model_is_written_once_and_never_half(tmp_path: Path) -> None:
    said: list[str] = []
    path = find_or_write(SMALL, said.append, tmp_path)
    written = len(said)
    assert written > 0
    assert find_or_write(SMALL, said.append, tmp_path) == path
    assert len(said) == written
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.engine
def test_it_says_whole_words_and_never_ends(weights: Path) -> None:
    descriptor = os.open(weights, os.O_RDONLY)
    model = llama.Model(descriptor)
    os.close(descriptor)
    context = llama.Context(model, streams=1, stream_tokens=256, batch_tokens=64, threads=1)
    try:
        vocabulary = Vocabulary(model)
        tokens = model.tokenize(b"the river was working", parse_special=False)
        assert len(tokens) == 4
        context.decode(tokens, range(4), [0] * 4, [3])
        logits = context.logits(3)
        ranked = logits.argsort()[::-1]
        assert model.n_vocab == 6000
        assert all(vocabulary.pieces[token].strip() for token in ranked[:100])
        assert logits[ranked[100]] > 0.0
        assert all(logits[token] == 0.0 for token in vocabulary.stop_tokens(["<|end|>"]))
        assert Sampling(1, temperature=0.0).greedy
    finally:
        context.close()
        model.close()


def test_its_pin_takes_the_launch_settings_that_are_given(weights: Path) -> None:
    launch = Launch(context_tokens=CONTEXT_TOKENS, max_sessions=3, batch_tokens=64)
    manifest = shape_manifest(weights, launch)
    assert manifest.launch == launch
    assert manifest.files[0].size == weights.stat().st_size

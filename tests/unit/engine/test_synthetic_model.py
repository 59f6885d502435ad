"""The model that the lab and these tests use in place of a real one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from llama_cpp import llama_cpp as lib

from appliance.core.pin import verify_open_file
from appliance.lab.synthetic_model import synthetic_manifest, write_model
from inference.engine import llama
from inference.engine.llama import Model
from inference.engine.vocabulary import Vocabulary

pytestmark = pytest.mark.engine


def test_a_seed_always_gives_the_same_bytes(tmp_path: Path, weights: Path) -> None:
    again, other = tmp_path / "again.gguf", tmp_path / "other.gguf"
    write_model(again)
    write_model(other, seed=2)
    assert again.read_bytes() == weights.read_bytes()
    assert other.read_bytes() != weights.read_bytes()
    assert 4e6 < weights.stat().st_size < 10e6


def test_its_manifest_pins_the_file(weights: Path) -> None:
    manifest = synthetic_manifest(weights)
    with weights.open("rb") as file:
        verify_open_file(file, manifest.files[0], "files.0")
    assert manifest.runtime.llama_cpp_python == llama.VERSION
    assert (manifest.name, manifest.launch.context_tokens) == ("tiny-random", 2048)


def test_llama_cpp_loads_it_without_a_warning(weights: Path) -> None:
    lines: list[str] = []

    @lib.llama_log_callback
    def log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        if level in {3, 4}:  # GGML_LOG_LEVEL_WARN, _ERROR
            lines.append(text.decode())

    lib.llama_log_set(log, None)
    try:
        model = lib.llama_model_load_from_file(str(weights).encode(), lib.llama_model_default_params())
        lib.llama_model_free(model)
    finally:
        lib.llama_log_set(llama._SINK, None)
    assert lines == []


def test_ordinary_english_becomes_words(model: Model, vocabulary: Vocabulary) -> None:
    text = b"The answer to your question is simple: the river was working and people remembered it."
    pieces = [vocabulary.pieces[token] for token in model.tokenize(text, parse_special=False)]
    assert b"".join(pieces) == b" " + text
    assert b" answer" in pieces
    assert b" remembered" in pieces
    assert len(pieces) <= len(text.split()) + 4


def test_every_byte_has_a_token(model: Model, vocabulary: Vocabulary) -> None:
    text = "é€😀\n\t\x00".encode()
    pieces = b"".join(vocabulary.pieces[token] for token in model.tokenize(text, parse_special=False))
    assert pieces.removeprefix(b" ") == text

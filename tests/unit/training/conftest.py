"""A small tokenizer, and a model file around it."""

from __future__ import annotations

import os
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

from appliance.reading.dialogues import Scale, draw_dialogue
from appliance.training.export import write_gguf
from appliance.training.tokenizer import train_tokenizer
from inference.engine.llama import Model

SCALE = Scale(passages=2, facts=2, fillers=1, questions=3, absent=2)


@pytest.fixture(scope="session")
def tokenizer():
    random = Random(1)
    dialogues = (draw_dialogue(random, SCALE) for _ in range(300))
    return train_tokenizer((message["content"] for messages in dialogues for message in messages), 640)


@pytest.fixture(scope="session")
def shape(tokenizer):
    return SimpleNamespace(
        vocabulary=len(tokenizer.pieces),
        context=256,
        layers=1,
        dimensions=64,
        heads=2,
        kv_heads=2,
        hidden=64,
        head_dimensions=32,
        rope_base=10_000.0,
        epsilon=1e-5,
    )


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory, tokenizer, shape):
    random = np.random.default_rng(1)
    sizes = {"query": (64, 64), "key": (64, 64), "value": (64, 64), "output": (64, 64)}
    sizes |= {"gate": (64, 64), "up": (64, 64), "down": (64, 64)}
    weights = {f"blocks.0.{name}.weight": random.normal(size=size) for name, size in sizes.items()}
    weights |= {f"blocks.0.{name}.weight": np.ones(64) for name in ("attention_norm", "feed_norm")}
    weights |= {"norm.weight": np.ones(64), "embedding.weight": random.normal(size=(shape.vocabulary, 64))}
    path = tmp_path_factory.mktemp("export") / "small.gguf"
    write_gguf(path, "small", tokenizer, shape, {k: v.astype(np.float32) for k, v in weights.items()})
    return path


@pytest.fixture(scope="session")
def model(gguf_file):
    descriptor = os.open(gguf_file, os.O_RDONLY)
    model = Model(descriptor)
    os.close(descriptor)
    yield model
    model.close()

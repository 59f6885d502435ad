"""The synthetic model, written once, and engines made of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_bench import CONTEXT_TOKENS, Bench

from appliance.core.pin import Launch, Manifest
from appliance.lab.synthetic_model import synthetic_manifest, write_model
from inference.engine.erase import prove
from inference.engine.llama import Context, Model
from inference.engine.runner import Runner
from inference.engine.scheduler import Scheduler
from inference.engine.template import ChatTemplate
from inference.engine.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture(scope="session")
def manifest(weights: Path) -> Manifest:
    launch = Launch(context_tokens=CONTEXT_TOKENS, max_sessions=4, batch_tokens=256)
    return synthetic_manifest(weights).model_copy(update={"launch": launch})


@pytest.fixture(scope="session")
def model(weights: Path) -> Iterator[Model]:
    descriptor = os.open(weights, os.O_RDONLY)
    model = Model(descriptor)
    os.close(descriptor)  # the model stays without it
    yield model
    model.close()


@pytest.fixture(scope="session")
def vocabulary(model: Model) -> Vocabulary:
    return Vocabulary(model)


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    context = Context(model, streams=4, stream_tokens=CONTEXT_TOKENS, batch_tokens=256, threads=1)
    yield context
    context.close()


@pytest.fixture
def make_bench(context: Context, vocabulary: Vocabulary, manifest: Manifest) -> Callable[[], Bench]:
    def make() -> Bench:
        layout = prove(context)
        scheduler = Scheduler(streams=4, context_tokens=CONTEXT_TOKENS, chunk_tokens=32, batch_tokens=128)
        runner = Runner(context, layout, vocabulary, scheduler, manifest.stop)
        template = ChatTemplate(manifest.chat_template, bos=vocabulary.bos, eos=vocabulary.eos)
        return Bench(runner, context, layout, scheduler, vocabulary, template)

    return make


@pytest.fixture
def bench(make_bench: Callable[[], Bench]) -> Bench:
    return make_bench()

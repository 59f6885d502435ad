"""From a pin and its weights to a runner that is proven to erase: every allocation, in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from appliance.core.errors import PinError
from appliance.core.pin import Manifest
from inference.engine import llama
from inference.engine.erase import prove
from inference.engine.runner import Runner
from inference.engine.scheduler import Scheduler
from inference.engine.state_blob import Layout
from inference.engine.vocabulary import Vocabulary

_CHUNK_TOKENS = 128  # prompt tokens between two tokens of somebody else's answer, until speed is measured


@dataclass(frozen=True)
class Loaded:
    """A loaded model, warmed up by the proof.

    Attributes:
        vocabulary: Of the model.
        context: Its streams; the runner is the only one that decodes on them.
        layout: Of a stream's state.
        runner: Ready to take work.
        runtime_digest: SHA-256 of the libraries that run the model.
        release: Frees everything; every stream must be closed.
    """

    vocabulary: Vocabulary
    context: llama.Context
    layout: Layout
    runner: Runner
    runtime_digest: str
    release: Callable[[], None]


def load(manifest: Manifest, weights_fd: int, *, threads: int) -> Loaded:
    """Load a model and prove that it can be erased.

    Args:
        manifest: The pin.
        weights_fd: Descriptor whose bytes were verified against `manifest.files[0]`; not needed after this call.
        threads: Threads that compute.

    Raises:
        PinError: If the pin names another runtime, or llama.cpp does not load the weights.
        EngineFailed: If there is not enough memory, or the erase self-test fails: the cell must not serve then.
    """
    if manifest.runtime.llama_cpp_python != llama.VERSION:
        raise PinError("another version of llama-cpp-python is installed", field="runtime.llama_cpp_python")
    launch = manifest.launch
    with contextlib.ExitStack() as stack:
        model = llama.Model(weights_fd)
        stack.callback(model.close)
        context = llama.Context(
            model,
            streams=launch.max_sessions,
            stream_tokens=launch.context_tokens,
            batch_tokens=launch.batch_tokens,
            threads=threads,
        )
        stack.callback(context.close)
        layout = prove(context)
        vocabulary = Vocabulary(model)
        scheduler = Scheduler(
            streams=launch.max_sessions,
            context_tokens=launch.context_tokens,
            chunk_tokens=_CHUNK_TOKENS,
            batch_tokens=launch.batch_tokens,
        )
        runner = Runner(context, layout, vocabulary, scheduler, manifest.stop)
        digest = llama.runtime_digest()
        return Loaded(vocabulary, context, layout, runner, digest, stack.pop_all().close)

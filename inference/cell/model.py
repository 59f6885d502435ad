"""The pinned model: found by digest, verified on the open descriptor, and only then given to the engine."""

from __future__ import annotations

import asyncio
import os
from io import BufferedReader
from pathlib import Path

from appliance.core.errors import PinError
from appliance.core.hashed import verify_weights
from appliance.core.pin import Manifest
from inference.cell.engine_protocol import CellEngine, EngineLoader


async def load_pinned(models: Path, manifest: Manifest, load: EngineLoader, *, threads: int) -> CellEngine:
    """Verify the pinned weights and load them, off the event loop's thread.

    1. the installed llama-cpp-python is the pin's, 2. the file is there, 3. size and digest of the bytes behind the
    descriptor, unless the agent hashed exactly this file since the boot, 4. the engine reads them through the same descriptor: llama.cpp never parses a byte that was not
    verified.

    Raises:
        PinError: If one of the first three fails.
        ApplianceError: Whatever the engine raises.
    """
    verify_runtime(manifest)
    loop = asyncio.get_running_loop()
    with open_weights(models, manifest) as file:
        await asyncio.to_thread(verify_weights, file, manifest.files[0], models, "files.0")
        return await asyncio.to_thread(load, manifest, file.fileno(), threads=threads, loop=loop)


def verify_runtime(manifest: Manifest) -> None:
    """Check that the installed llama-cpp-python is the one the model is pinned to; return None or raise.

    Raises:
        PinError: If it is another version.
    """
    import llama_cpp

    if llama_cpp.__version__ != manifest.runtime.llama_cpp_python:
        raise PinError("another version of llama-cpp-python is installed", field="runtime.llama_cpp_python")


def open_weights(models: Path, manifest: Manifest) -> BufferedReader:
    """Open the weights by their digest.

    Raises:
        PinError: If there is no such file.
    """
    path = models / manifest.files[0].sha256
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
    except OSError as error:
        raise PinError("no such model on this node", field="files.0.sha256") from error

"""A model pin: the whole set of files, template and launch settings of one exact model.

`pin_id` is the SHA-256 of the manifest's canonical JSON. Every answer and every receipt names it.
"""

from __future__ import annotations

import hashlib
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from appliance.core.errors import PinError
from appliance.core.names import Digest, Name, Version
from appliance.core.schema import Closed

# Content-addressed: the name in the manifest is for people, the digest is the address.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class PinnedFile(Closed):
    """One file of a model.

    Attributes:
        path: File name for people; no folder.
        size: Length in bytes.
        sha256: Digest of the bytes, and the name under which a node stores them.
    """

    path: FileName
    sha256: Digest
    size: Annotated[int, Field(ge=1, le=2**43)]


class Launch(Closed):
    """How the cell loads the model.

    Attributes:
        context_tokens: Context of one session, in tokens.
        max_sessions: KV streams, that is sessions that can be open at once in one cell (llama.cpp's n_seq_max).
        batch_tokens: Largest number of tokens in one call of llama_decode.
    """

    batch_tokens: Annotated[int, Field(ge=32, le=8192)] = 512
    context_tokens: Annotated[int, Field(ge=256, le=1_048_576)] = 2048
    max_sessions: Annotated[int, Field(ge=1, le=255)] = 8


class Runtime(Closed):
    """What must run the model: the pinned version of llama-cpp-python."""

    llama_cpp_python: Version


class ToolCalls(Closed):
    """How a model whose template takes `tools` writes a call: `begin`, a JSON object with `name` and arguments, `end`.

    Attributes:
        begin: Text before the object; "" if the object begins the answer.
        end: Text behind it.
        arguments: The object's name for the arguments.
    """

    arguments: Literal["arguments", "parameters"] = "arguments"
    begin: Annotated[str, StringConstraints(max_length=64)]
    end: Annotated[str, StringConstraints(max_length=64)]


class Manifest(Closed):
    """Everything that makes a model exactly this model.

    Attributes:
        v: Schema version.
        name: The name that clients ask for.
        version: Version of the model.
        files: Weights first (one GGUF file in this version of the schema), then any others.
        chat_template: Jinja source; the template inside the GGUF is never used.
        stop: Texts that end a turn, for example the end-of-turn token's text.
        tool_calls: How calls of tools are written, None if the model cannot.
        launch: Context, streams, batch.
        runtime: Pinned engine.
        licence: SPDX expression.
        source: Where the files came from, for people.
    """

    chat_template: Annotated[str, StringConstraints(min_length=1, max_length=65536)]
    files: Annotated[tuple[PinnedFile, ...], Field(min_length=1, max_length=64)]
    launch: Launch
    licence: Annotated[str, StringConstraints(max_length=128)]
    name: Name
    runtime: Runtime
    source: Annotated[str, StringConstraints(max_length=512)]
    stop: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...], Field(max_length=8)
    ]
    tool_calls: ToolCalls | None = None
    v: Literal[1] = 1
    version: Version

    @property
    def pin_id(self) -> str:
        """SHA-256 of the canonical manifest, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical_bytes()).hexdigest()


def verify_open_file(file: BufferedReader, pinned: PinnedFile, field: str) -> None:
    """Check that an open file holds exactly the pinned bytes; return None or raise.

    The caller goes on to use the same descriptor, so nobody can change which file is meant between check and use.

    Raises:
        PinError: If the size or the digest differs.
    """
    file.seek(0, 2)
    if file.tell() != pinned.size:
        raise PinError("the file has another size than its pin", field=f"{field}.size")
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != pinned.sha256:
        raise PinError("the file's bytes are not the pinned ones", field=f"{field}.sha256")
    file.seek(0)


def pin_file(path: Path) -> PinnedFile:
    """Describe a file as it is now."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return PinnedFile(path=path.name, size=file.tell(), sha256=digest)

"""llama.cpp, and nothing else in the product knows it: a model and a context.

GGML_ASSERT ends the process, so every call checks its arguments here, in Python, before C code sees them. One context
belongs to one thread at a time; `Model` may be read from any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import mmap
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from appliance.core.errors import PinError
from inference.engine.errors import BrokenOff, EngineFailed
from inference.engine.pace import MOST_ROWS
from inference.engine.state_blob import fresh_memory

VERSION = llama_cpp.__version__
CELL_PADDING = (
    256  # a stream's cells come in multiples of this (src/llama-context.cpp, GGML_PAD of n_ctx_seq)
)
MAX_STREAMS = 256  # LLAMA_MAX_SEQ

# llama.cpp logs to stderr, some of it content (grammars). abs(3) takes the level, ignores the text and returns: a
# sink that runs no Python and cannot fail.
_LIBC = ctypes.CDLL(None)
_SINK = ctypes.cast(_LIBC.abs, lib.llama_log_callback)
# Asked before each operation of a batch that may be broken off. strlen(3) of a flag is not 0 once it is raised: again
# a function that runs no Python.
_RAISED = ctypes.cast(_LIBC.strlen, lib.ggml_abort_callback)
_NEVER = lib.ggml_abort_callback()
_BROKEN_OFF = 2  # status of llama_decode


@functools.cache
def runtime_digest() -> str:
    """Return the SHA-256 of llama.cpp's and ggml's shared libraries, in the order of their names.

    The same as `cat lib/lib{ggml,llama}*.so* | sha256sum` in the package's folder, names sorted bytewise.
    """
    folder = Path(lib._lib._name).parent
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir(), key=lambda path: path.name.encode()):
        if path.name.startswith(("libggml", "libllama")) and ".so" in path.name:
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Model:
    """The weights and the vocabulary.

    Args:
        weights_fd: Descriptor whose bytes were verified; llama.cpp opens the same inode through /proc.
        gpu_layers: Layers on the GPU; None for all of them where there is a GPU backend.

    Raises:
        PinError: If llama.cpp does not take the file.
    """

    def __init__(self, weights_fd: int, *, gpu_layers: int | None = None) -> None:
        os.environ["GGML_NO_BACKTRACE"] = "1"  # at a crash ggml would start gdb and print arguments
        lib.llama_log_set(_SINK, None)
        params = lib.llama_model_default_params()
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP  # shared page cache, no mlock
        params.n_gpu_layers = (
            (-1 if lib.llama_supports_gpu_offload() else 0) if gpu_layers is None else gpu_layers
        )
        handle = lib.llama_model_load_from_file(b"/proc/self/fd/%d" % weights_fd, params)
        if not handle:
            raise PinError("llama.cpp does not load these weights", field="files.0")
        self.handle: Any = handle
        self._vocab = lib.llama_model_get_vocab(handle)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = lib.llama_vocab_bos(self._vocab)
        self.eos: int = lib.llama_vocab_eos(self._vocab)
        self.add_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))

    def tokenize(self, text: bytes, *, parse_special: bool) -> list[int]:
        """Return the tokens of UTF-8 `text`, nothing added before or after it."""
        size = len(text) + 8  # a token covers at least one byte; a few more for an added space
        buffer = (lib.llama_token * size)()
        count = lib.llama_tokenize(self._vocab, text, len(text), buffer, size, False, parse_special)
        if count < 0:
            raise EngineFailed("the tokenizer gave more tokens than the text has bytes")
        tokens = buffer[:count]
        ctypes.memset(buffer, 0, ctypes.sizeof(buffer))
        return tokens

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for a control token."""
        buffer = ctypes.create_string_buffer(256)
        count = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(count, 0)]

    def text(self, token: int) -> str:
        """Return a token's own text as the vocabulary spells it; for control tokens, what a template writes."""
        raw = lib.llama_vocab_get_text(self._vocab, token)
        return raw.decode("utf-8", "replace") if raw else ""

    def control(self, token: int) -> bool:
        """Whether the tokenizer makes this token only where special tokens are asked for."""
        return self._has(token, lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN)

    def user_defined(self, token: int) -> bool:
        """Whether the tokenizer makes this token wherever its text occurs, special tokens asked for or not."""
        return self._has(token, lib.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def ends_generation(self, token: int) -> bool:
        """Whether the vocabulary says that this token ends an answer."""
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def _has(self, token: int, attributes: int) -> bool:
        return bool(lib.llama_vocab_get_attr(self._vocab, token) & attributes)

    def close(self) -> None:
        """Free the weights. Contexts made from it must be closed before."""
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None


class Context:
    """KV streams, batches and logits of one model.

    Args:
        model: Stays open at least as long.
        streams: Sequences with a KV stream of their own each (1 to 256).
        stream_tokens: Cells of a stream at least; rounded up to a multiple of 256.
        batch_tokens: Most tokens in one `decode`; raised to `outputs`.
        threads: Threads that compute.

    Attributes:
        outputs: Rows of one `decode` whose logits can be had: one for every stream, or those of a step with guesses.

    Raises:
        EngineFailed: If llama.cpp cannot make it, mostly for want of memory.
    """

    def __init__(
        self, model: Model, *, streams: int, stream_tokens: int, batch_tokens: int, threads: int
    ) -> None:
        self.streams = streams
        self.outputs = max(MOST_ROWS, streams)
        self.stream_tokens = -(-stream_tokens // CELL_PADDING) * CELL_PADDING
        self.batch_tokens = max(batch_tokens, self.outputs)
        self.n_vocab = model.n_vocab
        self.closed = False
        self.handle: Any = lib.llama_init_from_model(model.handle, self._params(threads))
        if not self.handle or lib.llama_n_ctx_seq(self.handle) < stream_tokens:
            raise EngineFailed(
                "llama.cpp makes no context of this size",
                hint="lower max_sessions or context_tokens in the pin",
            )
        self._memory = lib.llama_get_memory(self.handle)
        self._flag = ctypes.create_string_buffer(2)  # "" or one byte, and the end of the string
        self._batch = _Batch(self.batch_tokens)
        self._output_rows = self.streams  # that the output buffer has

    def _params(self, threads: int) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx = self.stream_tokens * self.streams
        params.n_seq_max = self.streams
        params.kv_unified = False  # a stream's attention reads its own cells only
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_outputs_max = self.outputs  # the default reserves logits for every token of a batch
        params.n_threads = params.n_threads_batch = threads
        # Flash attention where the backend has it: less memory, and no matrix of scores to be left behind.
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.swa_full = True
        params.no_perf = True
        return params

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], streams: Sequence[int], outputs: Sequence[int]
    ) -> None:
        """Run one batch.

        Args:
            tokens, positions, streams: Of each row; rows of one stream in order, streams ascending.
            outputs: Rows whose logits are wanted.

        Raises:
            EngineFailed: If an argument is out of range or llama.cpp fails; cells may have been written then.
            BrokenOff: Inside `interruptible` alone.
        """
        batch, n = self._batch, len(tokens)
        if not 0 < n <= self.batch_tokens or len(outputs) > self.outputs:
            raise EngineFailed("batch out of range")
        batch.fill(tokens, positions, streams, outputs)
        if not batch.within(n, self.n_vocab, self.stream_tokens, self.streams):
            raise EngineFailed("token, position or stream out of range")
        self._output_rows = max(self._output_rows, len(outputs))
        status = lib.llama_decode(self.handle, batch.struct)
        batch.wipe(n)
        if status == _BROKEN_OFF:
            raise BrokenOff
        if status != 0:
            raise EngineFailed(f"llama_decode returned {int(status)}")

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        """Let `interrupt` break off what is decoded inside, with `BrokenOff`. What was called before does not count."""
        self._flag[0] = b"\0"
        lib.llama_set_abort_callback(self.handle, _RAISED, ctypes.addressof(self._flag))
        try:
            yield
        finally:
            lib.llama_set_abort_callback(self.handle, _NEVER, None)

    def interrupt(self) -> None:
        """Break off a batch that may be; from any thread. It ends within an operation of its graph, on a CPU."""
        self._flag[0] = b"\1"

    def logits(self, row: int) -> NDArray[np.float32]:
        """Return the logits of a row of the last batch, (n_vocab,) float32, valid until the next one; may be written to.

        Raises:
            EngineFailed: If the row was not among the outputs.
        """
        pointer = lib.llama_get_logits_ith(self.handle, row)
        if not pointer:
            raise EngineFailed("no logits for this row")
        return np.ctypeslib.as_array(pointer, (self.n_vocab,))

    def wipe_logits(self) -> None:
        """Overwrite the output buffer. Between steps nobody needs it."""
        # It has a row for every sequence from the start, grows with the batches and never shrinks
        # (src/llama-context.cpp, output_reserve).
        ctypes.memset(lib.llama_get_logits(self.handle), 0, self._output_rows * self.n_vocab * 4)

    def truncate(self, stream: int, length: int) -> None:
        """Forget a stream's cells from position `length` on. Their bytes stay where they are.

        Raises:
            EngineFailed: If the model cannot forget a part (recurrent models).
        """
        self._check_stream(stream)
        if not lib.llama_memory_seq_rm(self._memory, stream, length, -1):
            raise EngineFailed("this model cannot forget the end of a sequence")

    def read_state(self, stream: int) -> mmap.mmap:
        """Return a copy of a stream's state, in memory that the kernel takes back when it is dropped."""
        self._check_stream(stream)
        size = lib.llama_state_seq_get_size(self.handle, stream)
        data = fresh_memory(max(size, 1))
        if lib.llama_state_seq_get_data(self.handle, _address(data), size, stream) != size or not size:
            raise EngineFailed("llama.cpp does not read back a stream")
        return data

    def write_state(self, stream: int, data: mmap.mmap) -> None:
        """Replace a stream's state.

        Raises:
            EngineFailed: If llama.cpp refuses it.
        """
        self._check_stream(stream)
        if lib.llama_state_seq_set_data(self.handle, _address(data), len(data), stream) != len(data):
            raise EngineFailed("llama.cpp does not take the state of a stream")

    def close(self) -> None:
        """Free the context."""
        if not self.closed:
            self.closed = True
            lib.llama_free(self.handle)

    def _check_stream(self, stream: int) -> None:
        if not 0 <= stream < self.streams:
            raise EngineFailed("stream out of range")


class _Batch:
    """llama_batch over numpy arrays, so that filling it is a copy and not a loop."""

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._streams = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._outputs = np.zeros(size, np.int8)
        # One stream per row: row i's list of streams is the i-th element itself.
        self._lists = (self._streams.ctypes.data + 4 * np.arange(size)).astype(np.uint64)
        fields: dict[str, Any] = {name: kind for name, kind, *_ in lib.llama_batch._fields_}
        self.struct = lib.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(fields["token"]),
            embd=None,
            pos=self._positions.ctypes.data_as(fields["pos"]),
            n_seq_id=self._counts.ctypes.data_as(fields["n_seq_id"]),
            seq_id=self._lists.ctypes.data_as(fields["seq_id"]),
            logits=self._outputs.ctypes.data_as(fields["logits"]),
        )

    def fill(
        self, tokens: Sequence[int], positions: Sequence[int], streams: Sequence[int], outputs: Sequence[int]
    ) -> None:
        n = len(tokens)
        self.struct.n_tokens = n
        self._tokens[:n] = tokens
        self._positions[:n] = positions
        self._streams[:n] = streams
        self._outputs[:n] = 0
        self._outputs[list(outputs)] = 1

    def within(self, n: int, n_vocab: int, stream_tokens: int, streams: int) -> bool:
        """Whether all rows are ones that llama.cpp does not abort on."""
        return all(
            values[:n].min() >= 0 and values[:n].max() < limit
            for values, limit in (
                (self._tokens, n_vocab),
                (self._positions, stream_tokens),
                (self._streams, streams),
            )
        )

    def wipe(self, n: int) -> None:
        """Overwrite the tokens of the batch."""
        self._tokens[:n] = 0


def _address(data: mmap.mmap) -> Any:
    """Return a pointer to a mapping's bytes; the mapping stays alive as long as the pointer."""
    return (ctypes.c_uint8 * len(data)).from_buffer(data)

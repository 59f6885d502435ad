"""Synthetic models in the shape of real ones: random weights, but layers, widths and vocabulary of a known model.

What serving costs depends on the shape alone, so no model needs to be downloaded to measure it. Every matrix is Q8_0
and drawn straight as integers, so the same shape gives the same bytes on every machine. Such a model says whole
English words in no order and never ends an answer by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from appliance.core.pin import Launch, Manifest, Runtime, pin_file
from appliance.lab.synthetic_model import CHAT_TEMPLATE, add_tokenizer
from appliance.models.gguf_file import LICENCE, Header, begin

Progress = Callable[[str], None]

CONTEXT_TOKENS: Final = 8192
_BLOCK = 32  # weights that share a scale in Q8_0, each one signed byte (ggml-common.h, block_q8_0)
_BLOCK_BYTES = 2 + _BLOCK
_BYTE_DEVIATION = 73.9  # of a uniform signed byte
_REVISION = 1  # of this writer; goes into file names, so that an old file is never taken for a new one


@dataclass(frozen=True)
class Shape:
    """The shape of a llama-architecture model.

    Attributes:
        name: What the command line calls it.
        like: The model whose shape it is.
        layers: Blocks of attention and feed-forward.
        dim: Width of the residual stream; like `hidden` a multiple of 32.
        heads: Heads of the queries.
        kv_heads: Heads of keys and values; divide `heads`.
        hidden: Width of the feed-forward layer.
        n_vocab: Tokens of the vocabulary.
    """

    name: str
    like: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    hidden: int
    n_vocab: int

    @property
    def head_dim(self) -> int:
        """Dimensions of one head."""
        return self.dim // self.heads

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache for one token, in 16-bit floats."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("135m", "SmolLM2-135M", 30, 576, 9, 3, 1536, 49_152),
        Shape("500m", "Qwen2.5-0.5B", 24, 896, 14, 2, 4864, 151_936),
        Shape("1b", "Llama-3.2-1B", 16, 2048, 32, 8, 8192, 128_256),
    )
}


@dataclass(frozen=True)
class _Tensor:
    """A tensor to be written. `deviation` of its weights; None for a norm, whose weights are one."""

    name: str
    rows: int
    columns: int
    deviation: float | None


def model_cache() -> Path:
    """Return the folder in which synthetic models are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "sovereign-appliance" / "models"


def find_or_write(shape: Shape, report: Progress, folder: Path | None = None) -> Path:
    """Return the file of a shape; write it if it is not there yet.

    Args:
        shape: One of `SHAPES`, or another.
        report: Told what is being done, for people.
        folder: Where models are kept, by default the user's cache.
    """
    folder = model_cache() if folder is None else folder
    path = folder / f"shape-{shape.name}-r{_REVISION}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        write_shape(beside, shape, report)
        beside.replace(path)
    return path


def write_shape(path: Path, shape: Shape, report: Progress, *, seed: int = 1) -> None:
    """Write a model of this shape to `path`."""
    tensors = _tensors(shape)
    header = Header(
        f"shape-{shape.name}",
        n_vocab=shape.n_vocab,
        context=CONTEXT_TOKENS,
        dim=shape.dim,
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    writer = begin(path, header)
    words = add_tokenizer(writer, n_vocab=shape.n_vocab)
    for tensor in tensors:
        _announce(writer, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.PCG64(seed)
    for place, tensor in enumerate(tensors):
        report(f"writing the model of shape {shape.name}: {100 * place // len(tensors)} %")
        writer.write_tensor_data(_draw(tensor, random, words))
    writer.close()


def shape_manifest(path: Path, launch: Launch) -> Manifest:
    """Return the pin of a model that `write_shape` wrote."""
    return Manifest(
        name="shape",
        version="1.0",
        files=(pin_file(path),),
        chat_template=CHAT_TEMPLATE,
        stop=("<|end|>",),
        launch=launch,
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence=LICENCE,
        source="random weights, written by appliance.bench.shapes",
    )


def _tensors(shape: Shape) -> list[_Tensor]:
    """Return the tensors in the order of the file.

    Input and output matrices are apart even where the model it is like shares them: a token costs the same, and the
    output can be kept from naming tokens that are no words.
    """
    dim, hidden, kv = shape.dim, shape.hidden, shape.kv_heads * shape.head_dim
    wide, long = dim**-0.5, hidden**-0.5
    tensors = [
        _Tensor("token_embd.weight", shape.n_vocab, dim, 1.0),
        _Tensor("output.weight", shape.n_vocab, dim, wide),
        _Tensor("output_norm.weight", 1, dim, None),
    ]
    for layer in range(shape.layers):
        block = (
            _Tensor("attn_norm", 1, dim, None),
            _Tensor("attn_q", dim, dim, 3 * wide),
            _Tensor("attn_k", kv, dim, wide),
            _Tensor("attn_v", kv, dim, wide),
            _Tensor("attn_output", dim, dim, 4 * wide),
            _Tensor("ffn_norm", 1, dim, None),
            _Tensor("ffn_gate", hidden, dim, wide),
            _Tensor("ffn_up", hidden, dim, wide),
            _Tensor("ffn_down", dim, hidden, 2 * long),
        )
        tensors += [_Tensor(f"blk.{layer}.{t.name}.weight", t.rows, t.columns, t.deviation) for t in block]
    return tensors


def _announce(writer: gguf.GGUFWriter, tensor: _Tensor) -> None:
    if tensor.deviation is None:
        writer.add_tensor_info(tensor.name, [tensor.columns], np.dtype(np.float32), 4 * tensor.columns)
        return
    row = tensor.columns // _BLOCK * _BLOCK_BYTES
    kind = GGMLQuantizationType.Q8_0
    writer.add_tensor_info(
        tensor.name, [tensor.rows, row], np.dtype(np.uint8), tensor.rows * row, raw_dtype=kind
    )


def _draw(
    tensor: _Tensor, random: np.random.PCG64, words: NDArray[np.bool_]
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return a norm's weights, or the blocks of a matrix: (rows, columns / 32 * 34) bytes."""
    if tensor.deviation is None:
        return np.ones(tensor.columns, np.float32)
    shape = (tensor.rows, tensor.columns // _BLOCK)
    # The generator's raw words are the same in every version of numpy; its distributions are not promised to be.
    weights = random.random_raw(tensor.rows * tensor.columns // 8).astype("<u8", copy=False).view(np.int8)
    np.maximum(weights, -127, out=weights)  # no quantiser writes -128
    blocks = np.empty((*shape, _BLOCK_BYTES), np.uint8)
    blocks[:, :, :2] = np.array([tensor.deviation / _BYTE_DEVIATION], "<f2").view(np.uint8)
    blocks[:, :, 2:] = weights.view(np.uint8).reshape(*shape, _BLOCK)
    if tensor.name == "output.weight":
        blocks[~words] = 0  # a logit of zero, which the best of thousands of words always exceeds
    return blocks.reshape(tensor.rows, -1)

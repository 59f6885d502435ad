"""The trained network as a GGUF file: llama architecture, Q8_0 matrices, its own tokenizer inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType, TokenType
from numpy.typing import NDArray

from appliance.models.gguf_file import Header, Vocabulary, add_tokenizer, begin, write_all
from appliance.training.tokenizer import BOS, CHAT_TEMPLATE, CONTROL, END, EOS, UNKNOWN, Tokenizer

if TYPE_CHECKING:
    from appliance.training.network import Shape

Floats = NDArray[np.float32]
_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def write_gguf(
    path: Path, name: str, tokenizer: Tokenizer, shape: Shape, weights: Mapping[str, Floats]
) -> None:
    """Write a model to `path`, over whatever is there.

    Args:
        path: Of the file.
        name: Of the model.
        tokenizer: Its vocabulary has as many pieces as the embedding has rows.
        shape: Of the network.
        weights: By the names that `Network.state_dict` gives them.
    """
    header = Header(
        name,
        n_vocab=shape.vocabulary,
        context=shape.context,
        dim=shape.dimensions,
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dimensions,
        rope_base=shape.rope_base,
        epsilon=shape.epsilon,
    )
    writer = begin(path, header)
    add_tokenizer(writer, _vocabulary(tokenizer))
    writer.add_chat_template(CHAT_TEMPLATE)
    for tensor_name, tensor in _tensors(shape, weights):
        kind = GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(tensor_name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    write_all(writer)


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    special = {UNKNOWN: TokenType.UNKNOWN, **dict.fromkeys(CONTROL, TokenType.CONTROL)}
    bytes_end = 1 + len(CONTROL) + 256
    characters_end = len(tokenizer.pieces) - len(tokenizer.joined)
    return Vocabulary(
        tokenizer.pieces,
        # Pairs are joined best score first; a single character's score is never looked at.
        scores=[min(0.0, float(characters_end - n)) for n in range(len(tokenizer.pieces))],
        kinds=[
            special.get(piece, TokenType.BYTE if n < bytes_end else TokenType.NORMAL)
            for n, piece in enumerate(tokenizer.pieces)
        ],
        unknown=UNKNOWN,
        bos=BOS,
        eos=EOS,
        end=END,
    )


def _tensors(shape: Shape, weights: Mapping[str, Floats]) -> list[tuple[str, Floats]]:
    """Return the tensors under llama.cpp's names; without `output.weight` it uses the embedding for the logits."""
    tensors = [
        ("token_embd.weight", weights["embedding.weight"]),
        ("output_norm.weight", weights["norm.weight"]),
    ]
    for layer in range(shape.layers):
        for ours, theirs in _NAMES.items():
            tensor = weights[f"blocks.{layer}.{ours}.weight"]
            if ours in {"query", "key"}:
                tensor = _neighbours(tensor, tensor.shape[0] // shape.head_dimensions)
            tensors.append((f"blk.{layer}.{theirs}.weight", tensor))
    return tensors


def _neighbours(matrix: Floats, heads: int) -> Floats:
    """Reorder the rows of a query or key matrix: llama.cpp rotates neighbours, the network halves, of each head."""
    rows, columns = matrix.shape
    return np.ascontiguousarray(
        matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )

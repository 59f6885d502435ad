"""The trained network as a GGUF file: llama architecture, Q8_0 matrices, its own tokenizer inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType, LlamaFileType, TokenType
from numpy.typing import NDArray

from appliance.training.tokenizer import BOS, CHAT_TEMPLATE, CONTROL, END, EOS, UNKNOWN, Tokenizer

if TYPE_CHECKING:
    from appliance.training.network import Shape

Floats = NDArray[np.float32]
LICENCE = "Apache-2.0"
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
    writer = gguf.GGUFWriter(path, "llama")
    _add_shape(writer, name, shape)
    _add_tokenizer(writer, tokenizer)
    for tensor_name, tensor in _tensors(shape, weights):
        kind = GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(tensor_name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, name: str, shape: Shape) -> None:
    writer.add_name(name)
    writer.add_license(LICENCE)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dimensions)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dimensions)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    kinds = {UNKNOWN: TokenType.UNKNOWN, **dict.fromkeys(CONTROL, TokenType.CONTROL)}
    bytes_end = 1 + len(CONTROL) + 256
    characters_end = len(tokenizer.pieces) - len(tokenizer.joined)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokenizer.pieces)
    # Pairs are joined best score first; a single character's score is never looked at.
    writer.add_token_scores([min(0.0, float(characters_end - n)) for n in range(len(tokenizer.pieces))])
    writer.add_token_types(
        [
            kinds.get(piece, TokenType.BYTE if n < bytes_end else TokenType.NORMAL)
            for n, piece in enumerate(tokenizer.pieces)
        ]
    )
    writer.add_unk_token_id(tokenizer.ids[UNKNOWN])
    writer.add_bos_token_id(tokenizer.ids[BOS])
    writer.add_eos_token_id(tokenizer.ids[EOS])
    writer.add_eot_token_id(tokenizer.ids[END])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)


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

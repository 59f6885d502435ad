"""The parts of a GGUF file that are the same for every model we write: shape and tokenizer (GGUF specification)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
from gguf.constants import LlamaFileType, TokenType

LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Header:
    """Shape of a model of the llama architecture, matrices in Q8_0.

    Attributes:
        name: Of the model.
        n_vocab: Tokens.
        context: Longest sequence it is made for, in tokens.
        dim: Dimensions of the residual stream.
        layers: Blocks.
        hidden: Dimensions inside the feed-forward part.
        heads: Of the queries.
        kv_heads: Of keys and values.
        head_dim: Dimensions of a head.
        rope_base: Of the rotary positions' wavelengths.
        epsilon: Of the norms.
    """

    name: str
    n_vocab: int
    context: int
    dim: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_base: float = 10_000.0
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece vocabulary with byte fallback.

    Attributes:
        texts: Of the tokens, in the order of their ids.
        scores: The pair with the best one is joined first.
        kinds: What each token is.
        unknown, bos, eos, end: Texts of the tokens with these roles; `end` ends a message.
    """

    texts: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[TokenType]
    unknown: str = "<unk>"
    bos: str = "<s>"
    eos: str = "</s>"
    end: str = "<|end|>"


def begin(path: Path, header: Header) -> gguf.GGUFWriter:
    """Return a writer of a new file at `path`, over whatever is there, that knows the shape."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(header.name)
    writer.add_license(LICENCE)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(header.n_vocab)
    writer.add_context_length(header.context)
    writer.add_embedding_length(header.dim)
    writer.add_block_count(header.layers)
    writer.add_feed_forward_length(header.hidden)
    writer.add_head_count(header.heads)
    writer.add_head_count_kv(header.kv_heads)
    writer.add_rope_dimension_count(header.head_dim)
    writer.add_rope_freq_base(header.rope_base)
    writer.add_layer_norm_rms_eps(header.epsilon)
    return writer


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Add the tokenizer; a text gets a space in front and its token of beginning."""
    ids = {text: number for number, text in reversed(list(enumerate(vocabulary.texts)))}
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.texts)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.kinds)
    writer.add_unk_token_id(ids[vocabulary.unknown])
    writer.add_bos_token_id(ids[vocabulary.bos])
    writer.add_eos_token_id(ids[vocabulary.eos])
    writer.add_eot_token_id(ids[vocabulary.end])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def write_all(writer: gguf.GGUFWriter) -> None:
    """Write what was added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

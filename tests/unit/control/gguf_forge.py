"""Writes GGUF files by hand, proper ones and others: the format's own library writes only what is proper."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 32
F32, Q8_0 = 0, 8
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"


@dataclass(frozen=True)
class Tensor:
    """A row of the table. `size` is how many bytes are written for it."""

    name: str
    shape: tuple[int, ...] = (8,)
    kind: int = F32
    offset: int = 0
    size: int = 32


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value_of(value: Any) -> bytes:
    """A value with its type in front; bytes are taken as they are."""
    match value:
        case bytes():
            return value
        case bool():
            return struct.pack("<IB", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case [*texts]:
            return struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(map(text, texts))
    raise TypeError(value)


METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.license": "apache-2.0",
    "llama.context_length": 4096,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "<|end|>"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.eot_token_id": 3,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": TEMPLATE,
}
TENSORS = (Tensor("a"), Tensor("b", (32, 2), Q8_0, 32, 68))


def gguf(
    metadata: Mapping[str, Any] = METADATA,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    salt: bytes = b"",
) -> bytes:
    """Return a file. `counts` are what its header says of tensors and metadata; `salt` makes another file of the same model."""
    head = magic + struct.pack("<IQQ", version, *(counts or (len(tensors), len(metadata))))
    for key, value in metadata.items():
        head += text(key) + value_of(value)
    for tensor in tensors:
        head += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += b"".join(struct.pack("<Q", length) for length in tensor.shape)
        head += struct.pack("<IQ", tensor.kind, tensor.offset)
    end = max((tensor.offset + tensor.size for tensor in tensors), default=0)
    return head + bytes(-len(head) % ALIGNMENT) + bytes(end) + salt


def shards(count: int) -> list[bytes]:
    """Return a model in several files."""
    split = {"split.count": count, "split.tensors.count": count}
    first = gguf({**METADATA, **split, "split.no": 0}, [Tensor("t0")])
    others = [gguf({**split, "split.no": number}, [Tensor(f"t{number}")]) for number in range(1, count)]
    return [first, *others]

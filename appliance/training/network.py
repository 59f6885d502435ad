"""The llama architecture in PyTorch: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings.

Shapes: B rows, T tokens, D dimensions, H heads of D/H dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from appliance.training import tokenizer

MARK_LAYERS = 2
SOURCE_LAYERS = 6
MARKS = 1 + len(tokenizer.MARKS)


@dataclass(frozen=True)
class Shape:
    """Of the network.

    Attributes:
        vocabulary: Tokens.
        context: Longest sequence, in tokens.
        layers: Blocks.
        dimensions: Of the residual stream.
        heads: Of the queries.
        kv_heads: Of keys and values; divides `heads`.
        hidden: Dimensions inside the feed-forward part.
        rope_base: Of the rotary positions' wavelengths.
        epsilon: Of the norms.
    """

    vocabulary: int = 2048
    context: int = 2048
    layers: int = 8
    dimensions: int = 160
    heads: int = 5
    kv_heads: int = 5
    hidden: int = 448
    rope_base: float = 1_000_000.0  # most dimensions then compare content at any distance
    epsilon: float = 1e-5

    @property
    def head_dimensions(self) -> int:
        """Dimensions of a head."""
        return self.dimensions // self.heads


class Network(nn.Module):
    """Tokens in, last hidden states out; `embedding.weight` turns those into logits.

    Two heads serve the training alone: `marks` reads after `MARK_LAYERS` blocks which citation mark a token stands
    behind, `sources` after `SOURCE_LAYERS` which passage an answer is taken from.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.dimensions)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.dimensions, shape.epsilon)
        self.marks = nn.Linear(shape.dimensions, MARKS, bias=False)
        self.sources = nn.Linear(shape.dimensions, MARKS, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.1)
        for name, parameter in self.blocks.named_parameters():
            if parameter.ndim == 2:
                silent = name.endswith(("output.weight", "down.weight"))  # a block begins as the identity
                nn.init.normal_(parameter, std=0.0 if silent else parameter.shape[1] ** -0.5)

    def forward(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read (B, T) tokens at (B, T) positions, attention causal by row.

        Returns:
            The last hidden states, (B, T, D), and logits, (B, T, `MARKS`), of the mark that a token stands behind and
            of the passage that answers.
        """
        half = self.shape.head_dimensions // 2
        steps = torch.arange(half, device=tokens.device, dtype=torch.float32) / half
        angles = positions[:, None, :, None] * self.shape.rope_base**-steps
        cosines, sines = angles.cos(), angles.sin()
        states = self.embedding(tokens)
        for number, block in enumerate(self.blocks, start=1):
            states = block(states, cosines, sines)
            if number == min(MARK_LAYERS, self.shape.layers):
                marks = self.marks(functional.rms_norm(states, states.shape[-1:]))
            if number == min(SOURCE_LAYERS, self.shape.layers):
                sources = self.sources(functional.rms_norm(states, states.shape[-1:]))
        return self.norm(states), marks, sources


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size, inner = shape.dimensions, shape.kv_heads * shape.head_dimensions
        self.shape = shape
        self.attention_norm = nn.RMSNorm(size, shape.epsilon)
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, inner, bias=False)
        self.value = nn.Linear(size, inner, bias=False)
        self.output = nn.Linear(size, size, bias=False)
        self.feed_norm = nn.RMSNorm(size, shape.epsilon)
        self.gate = nn.Linear(size, shape.hidden, bias=False)
        self.up = nn.Linear(size, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, size, bias=False)

    def forward(self, states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Return the states, (B, T, D), with what this layer adds to them."""
        rows, length, size = states.shape
        normed = self.attention_norm(states)
        query, key, value = (
            part(normed).view(rows, length, -1, self.shape.head_dimensions).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        query, key = _rotate(query, cosines, sines), _rotate(key, cosines, sines)
        if self.shape.kv_heads != self.shape.heads:
            times = self.shape.heads // self.shape.kv_heads
            key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        read = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.output(read.transpose(1, 2).reshape(rows, length, size))
        normed = self.feed_norm(states)
        added: Tensor = states + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return added


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the halves of each head against each other; `export` reorders them to llama.cpp's neighbours."""
    first, second = heads.chunk(2, -1)
    return torch.cat((first * cosines - second * sines, first * sines + second * cosines), -1)

"""How a request's next token is chosen: the client's parameters, within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from appliance.core.errors import RefusedError


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of one request.

    Attributes:
        max_tokens: Most tokens to generate, at least 1.
        temperature: 0 (always the likeliest token) to 2.
        top_p: Nucleus, above 0 to 1 (1: off).
        top_k: Likeliest tokens kept (0: all).
        min_p: 0 (off) to 1, relative to the likeliest token.
        seed: 0 to 2^32 - 2, or None for a fresh random one.
        stop: Up to 16 texts that end the answer, none empty.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0 or self.top_k == 1


def verify_sampling(sampling: Sampling) -> None:
    """Check the bounds once more before C code sees them; return None or raise.

    Raises:
        RefusedError: Naming the field.
    """
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("max_tokens", sampling.max_tokens, 1, 2**31 - 1),
        ("temperature", sampling.temperature, 0.0, 2.0),
        ("top_p", sampling.top_p, math.nextafter(0.0, 1.0), 1.0),
        ("top_k", sampling.top_k, 0, 2**31 - 1),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("seed", sampling.seed or 0, 0, 2**32 - 2),  # 2^32 - 1 is llama.cpp's "random"
        ("stop", len(sampling.stop), 0, 16),
    )
    for field, value, low, high in bounds:
        if not low <= value <= high:  # NaN fails as well
            raise RefusedError(f"must be between {low:g} and {high:g}", field=field)
    if not all(sampling.stop):
        raise RefusedError("an empty text cannot stop anything", field="stop")

"""Muon: momentum whose direction is made orthogonal, for the matrices inside a network.

PyTorch's own does the Newton-Schulz iteration in bfloat16, which processors without such instructions emulate; this one
takes what it is given. Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, from the source
_ITERATIONS = 5


class Muon(Optimizer):
    """Steps of equal size in every direction.

    Args:
        matrices: Parameters of two dimensions.
        lr: Root mean square of a step's entries, times 5 (that is, close to AdamW's scale times 25).
        momentum: Of the gradient.
        weight_decay: Fraction of a matrix that a step at rate 1 takes off.
    """

    def __init__(
        self, matrices: Iterable[Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take one step."""
        del closure
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                alike[matrix.shape].append(matrix)
            for shape, matrices in alike.items():
                steps = _orthogonal(torch.stack([self._direction(m, group["momentum"]) for m in matrices]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=scale)

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        if matrix.grad is None:
            return torch.zeros_like(matrix)
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(state["momentum"], momentum)


def _orthogonal(matrices: Tensor) -> Tensor:
    """Return (N, rows, columns) matrices of the same directions with singular values near 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    turned = matrices.mT if tall else matrices
    turned = turned / (turned.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, second, third = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = turned @ turned.mT
        turned = first * turned + (second * square + third * square @ square) @ turned
    return turned.mT if tall else turned

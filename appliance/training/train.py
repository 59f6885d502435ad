"""The training loop: Muon for the matrices of the blocks, AdamW for the rest, checkpoints, a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from appliance.training.batches import IGNORED, Batches
from appliance.training.muon import Muon
from appliance.training.network import Network, Shape
from appliance.training.tokenizer import Tokenizer

Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        seed: Everything follows from it.
        steps: Batches in all.
        batch_tokens: Of a batch, about.
        matrix_rate, rate: Highest learning rates of Muon and AdamW.
        warm_up: Steps until they are reached.
        decay: Fraction of the steps, at the end, in which they fall to zero.
        mark_weight, source_weight: Of the losses of telling the nearest citation mark and the passage that an answer
            is taken from, beside that of the next token, which is 1.
        checkpoint_steps: How often the state is saved.
    """

    seed: int = 1
    steps: int = 10_000
    batch_tokens: int = 4096
    matrix_rate: float = 0.01
    rate: float = 3e-3
    warm_up: int = 60
    decay: float = 0.7
    mark_weight: float = 0.3
    source_weight: float = 0.5
    checkpoint_steps: int = 200


def train(tokenizer: Tokenizer, shape: Shape, plan: Plan, folder: Path, report: Report) -> Network:
    """Train, or go on where `folder`'s checkpoint stopped.

    Args:
        tokenizer: Of the model.
        shape: Of the network.
        plan: How.
        folder: Holds `checkpoint.pt`.
        report: Told step, loss and tokens per second.

    Returns:
        The trained network, on the CPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(plan.seed)
    torch.use_deterministic_algorithms(True)
    run = _Run.start(Network(shape).to(device), plan)
    batches = Batches(
        tokenizer, seed=plan.seed, steps=plan.steps, tokens=plan.batch_tokens, context=shape.context
    )
    checkpoint = folder / "checkpoint.pt"
    first = run.resume(checkpoint) if checkpoint.exists() else 0
    forward: Any = torch.compile(run.network, dynamic=True)
    for step in range(first, plan.steps):
        started = time.perf_counter()
        batch = batches[step]
        tokens, positions, targets, marks, sources = (
            torch.from_numpy(array).to(device)
            for array in (batch.tokens, batch.positions, batch.targets, batch.marks, batch.sources)
        )
        states, mark_logits, source_logits = forward(tokens, positions)
        loss = _loss(states, run.network.embedding.weight, targets)
        mark_loss = functional.cross_entropy(mark_logits.flatten(0, 1), marks.flatten())
        source_loss = functional.cross_entropy(source_logits.flatten(0, 1), sources.flatten())
        (loss + plan.mark_weight * mark_loss + plan.source_weight * source_loss).backward()
        run.step(_rate(step, plan))
        if (step + 1) % plan.checkpoint_steps == 0 or step + 1 == plan.steps:
            run.save(checkpoint, step + 1)
        report(step + 1, loss.item(), tokens.numel() / (time.perf_counter() - started))
    run.network.cpu()
    return run.network


@dataclass(frozen=True)
class _Run:
    """What changes while training: Muon moves the matrices of the blocks, AdamW the rest."""

    network: Network
    plan: Plan
    muon: Muon
    adam: torch.optim.AdamW

    @classmethod
    def start(cls, network: Network, plan: Plan) -> _Run:
        matrices = [parameter for parameter in network.blocks.parameters() if parameter.ndim == 2]
        known = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in network.parameters() if id(parameter) not in known]
        muon = Muon(matrices, lr=plan.matrix_rate, weight_decay=0.01)
        adam = torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0)
        return cls(network, plan, muon, adam)

    def step(self, rate: float) -> None:
        """Move the weights at this fraction of the highest learning rates."""
        for optimizer, highest in ((self.muon, self.plan.matrix_rate), (self.adam, self.plan.rate)):
            optimizer.param_groups[0]["lr"] = highest * rate
            optimizer.step()
            optimizer.zero_grad()

    def save(self, path: Path, step: int) -> None:
        """Write the checkpoint; a run that is cut off meanwhile keeps the one before."""
        new = path.with_suffix(".new")
        torch.save({**self._identity(), "step": step, **self._state()}, new)
        new.replace(path)

    def resume(self, path: Path) -> int:
        """Take the checkpoint's state and return its step."""
        saved = torch.load(path, weights_only=True)
        if any(saved[key] != value for key, value in self._identity().items()):
            raise SystemExit(f"{path} belongs to another plan; remove it or choose another folder")
        self.network.load_state_dict(saved["network"])
        self.muon.load_state_dict(saved["muon"])
        self.adam.load_state_dict(saved["adam"])
        return int(saved["step"])

    def _identity(self) -> dict[str, Any]:
        return {"plan": asdict(self.plan), "shape": asdict(self.network.shape)}

    def _state(self) -> dict[str, Any]:
        parts = {"network": self.network, "muon": self.muon, "adam": self.adam}
        return {name: part.state_dict() for name, part in parts.items()}


def _loss(states: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the tokens to be learned; the others never become logits."""
    learned = targets != IGNORED
    return functional.cross_entropy(states[learned] @ embedding.T, targets[learned])


def _rate(step: int, plan: Plan) -> float:
    """Return the fraction of the highest learning rates: up, level, down to zero."""
    left = (plan.steps - step) / plan.steps
    return min(1.0, (step + 1) / plan.warm_up, left / plan.decay)

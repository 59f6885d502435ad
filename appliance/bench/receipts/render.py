"""A finished run as JSON and as plots. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from appliance.bench.receipts.admission import Grown
from appliance.bench.receipts.receipts import Measured
from appliance.bench.serve.plot import Point, render_plot

_PLOTTED: Final[dict[str, tuple[str, str, str, Callable[[Grown], Sequence[float]]]]] = {
    "proof-bytes": ("Size of a proof", "bytes", "largest", lambda one: [one.proofs.proof_bytes]),
    "proof-ms": ("Time to make a proof", "ms", "median", lambda one: [one.proofs.prove_ms]),
    "admission": (
        "Receipts admitted and logged",
        "/s",
        "one process",
        lambda one: [one.round_receipts / took.wall_s for took in one.rounds],
    ),
    "memory": ("Peak memory of control", "MiB", "peak", lambda one: [one.proofs.peak_bytes / 2**20]),
}


def render_json(measured: Measured) -> dict[str, Any]:
    """Return the common form, with every round's figures."""
    return {
        **measured.report.json(),
        "signing": asdict(measured.signing),
        "sizes": [asdict(one) for one in measured.grown],
    }


def render_plots(grown: Sequence[Grown]) -> dict[str, str]:
    """Return plots of what grows with the leaves, by file name."""
    plots = {}
    for name, (title, unit, line, values) in _PLOTTED.items():
        points = [_point(one.leaves, values(one)) for one in grown]
        plots[f"receipts-{name}.svg"] = render_plot(title, "leaves", unit, {line: points})
    return plots


def _point(leaves: int, values: Sequence[float]) -> Point:
    return Point(leaves, statistics.median(values), min(values), max(values))

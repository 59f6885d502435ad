"""A finished run as JSON, as a table and as plots. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from appliance.bench.report import Check
from appliance.bench.serve.plot import Point, render_plot
from appliance.bench.serve.rounds import Round
from appliance.bench.serve.rows import Ratio
from appliance.bench.serve.serve import Measured

_PLOTTED: Final = {
    "tokens_per_s": ("Tokens per second, all streams", "tokens/s"),
    "ttft_ms": ("Median time to the first token", "ms"),
    "gap_p99_ms": ("p99 time between two tokens", "ms"),
}


def render_json(measured: Measured) -> dict[str, Any]:
    """Return the common form, with every round's figures."""
    figures = [
        {"round": number, "case": case, "side": side, **_finite(asdict(figure))}
        for number, of_round in enumerate(measured.rounds, 1)
        for (case, side), figure in of_round.items()
    ]
    report = measured.report.json()
    checks = [_finite(check) for check in report["checks"]]
    return {**report, "checks": checks, "figures": figures}


def render_lines(measured: Measured) -> list[str]:
    """Return the ratios and then the medians, for people."""
    report = measured.report
    width = max(len(check.name) for check in report.checks)
    lines = [f"  {_verdict(check.ok)}  {check.name:{width}}  {_value(check)}" for check in report.checks]
    lines += [f"  {_verdict(report.control_ok)}  control: {report.control_name}", ""]
    lines.append(f"  {'':28}{'tokens/s':>10}{'TTFT ms':>10}{'p50 ms':>9}{'p99 ms':>9}{'peak MiB':>10}")
    for case in measured.cases:
        lines.append(f"  {case.name}: {case.says}")
        lines += [f"    {side:26}{_medians(measured.rounds, case.name, side)}" for side in case.sides]
    return lines


def render_plots(measured: Measured) -> dict[str, str]:
    """Return plots of the figures by number of streams, by file name; none of fewer than two numbers."""
    counts = {
        case.name: int(case.name.split("-")[1]) for case in measured.cases if case.name.startswith("streams-")
    }
    if len(counts) < 2:
        return {}
    plots = {}
    for figure, (title, unit) in _PLOTTED.items():
        lines: dict[str, list[Point]] = {}
        for case, count in counts.items():
            for side in (side for name, side in measured.rounds[0] if name == case):
                values = _over(measured.rounds, case, side, figure)
                point = Point(count, statistics.median(values), min(values), max(values))
                lines.setdefault(side, []).append(point)
        ordered = {side: sorted(points, key=lambda point: point.x) for side, points in sorted(lines.items())}
        plots[f"{figure.replace('_', '-')}.svg"] = render_plot(title, "streams at once", unit, ordered)
    return plots


def _over(rounds: Sequence[Round], case: str, side: str, figure: str) -> list[float]:
    return [float(getattr(figures[case, side], figure)) for figures in rounds]


def _medians(rounds: Sequence[Round], case: str, side: str) -> str:
    def median(figure: str) -> float:
        return statistics.median(_over(rounds, case, side, figure))

    peak = median("peak_bytes") / 2**20
    return (
        f"{median('tokens_per_s'):10.1f}{median('ttft_ms'):10.1f}"
        f"{median('gap_p50_ms'):9.1f}{median('gap_p99_ms'):9.1f}{peak:10.0f}"
    )


def _value(check: Check) -> str:
    text = f"{check.value:6.2f} {check.unit}"
    if not isinstance(check, Ratio):
        return f"{text}  (at most {check.bound:g})" if check.bound is not None else text
    text += f"  ({check.low:.2f} to {check.high:.2f} in {check.n} rounds)"
    if check.bound is None:
        return text
    return f"{text}  {'at least' if check.at_least else 'at most'} {check.bound:.2f}"


def _verdict(ok: bool) -> str:
    return "ok " if ok else "OUT"


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Replace what was not measured by null: JSON has no NaN (RFC 8259 section 6)."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }

"""Line plots as SVG, drawn by hand: a mark per measured median, a whisker from the least to the greatest round. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 120, 40, 48
_COLOURS: Final = ("#0b6e4f", "#b3541e", "#4a5a8c", "#8c4a7a")


@dataclass(frozen=True)
class Point:
    """A measured value: `x` as it is written on the axis, the median, and the range."""

    x: int
    median: float
    low: float
    high: float


def render_plot(title: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Return a plot as SVG 1.1.

    Args:
        title: Above it.
        x_label, y_label: Of the axes. The x axis has equal steps from each value to the next, the y axis begins at 0.
        lines: By name; at least one point in all.
    """
    values = sorted({point.x for points in lines.values() for point in points})
    top, step = _scale(max(point.high for points in lines.values() for point in points))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(_LEFT, 22, title, size=15),
        _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, x_label, anchor="middle"),
        _text(_LEFT, _TOP - 4, y_label, anchor="middle", size=11),
    ]
    for number in range(round(top / step) + 1):
        y = _y(number * step, top)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{number * step:g}", anchor="end"))
    parts += [_text(_x(x, values), HEIGHT - _BOTTOM + 18, str(x), anchor="middle") for x in values]
    for place, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        parts += _line([(_x(point.x, values), point) for point in points], top, colour)
        parts += _entry(name, _TOP + 16 + 20 * place, colour)
    return "\n".join([*parts, "</svg>", ""])


def _line(points: Sequence[tuple[float, Point]], top: float, colour: str) -> Iterable[str]:
    """Yield a line with its marks and whiskers."""
    path = " ".join(f"{x:.1f},{_y(point.median, top):.1f}" for x, point in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, point in points:
        yield f'<path d="M{x:.1f} {_y(point.low, top):.1f}V{_y(point.high, top):.1f}" stroke="{colour}"/>'
        yield f'<circle cx="{x:.1f}" cy="{_y(point.median, top):.1f}" r="3.5" fill="{colour}"/>'


def _entry(name: str, y: float, colour: str) -> Iterable[str]:
    """Yield an entry of the legend."""
    x = WIDTH - _RIGHT + 16
    yield f'<path d="M{x} {y}h18" stroke="{colour}" stroke-width="2"/>'
    yield _text(x + 24, y + 4, name)


def _scale(highest: float) -> tuple[float, float]:
    """Return the end of the y axis and its step: 1, 2 or 5 times a power of ten, four to ten of them."""
    highest = max(highest, 1e-9)
    power = 10 ** math.floor(math.log10(highest))
    step = next(power * share for share in (0.1, 0.2, 0.5, 1.0, 2.0) if highest <= 10 * power * share)
    if highest <= 5 * step and step > power * 0.1:
        step /= 2
    return math.ceil(highest / step) * step, step


def _x(value: int, values: Sequence[int]) -> float:
    width = WIDTH - _RIGHT - _LEFT
    return _LEFT + width * (values.index(value) + 0.5) / len(values)


def _y(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * value / top


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'

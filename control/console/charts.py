"""Small charts, drawn as SVG on the server: no script, no style attribute, and a table behind each for who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

WIDTH: Final = 720
HEIGHT: Final = 120
_GAP: Final = 4
_LEAST: Final = 2  # so that one receipt among thousands shows


class Bar(NamedTuple):
    """One bar, in the units of the drawing.

    Attributes:
        x, y, width, height: Its rectangle.
        label, value: What it stands for.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    value: int


class Bars(NamedTuple):
    """A chart of bars.

    Attributes:
        bars: From left to right.
        most: The highest value.
        total: Of all values.
    """

    bars: tuple[Bar, ...]
    most: int
    total: int
    width: int = WIDTH
    height: int = HEIGHT


def draw_bars(values: Sequence[tuple[str, int]]) -> Bars:
    """Return a chart of labelled values, scaled to its highest."""
    most = max((value for _, value in values), default=0)
    step = WIDTH / max(1, len(values))
    bars = []
    for index, (label, value) in enumerate(values):
        height = max(_LEAST, HEIGHT * value / most) if value else 0
        bars.append(
            Bar(
                round(index * step + _GAP / 2, 1),
                round(HEIGHT - height, 1),
                round(step - _GAP, 1),
                round(height, 1),
                label,
                value,
            )
        )
    return Bars(tuple(bars), most, sum(value for _, value in values))

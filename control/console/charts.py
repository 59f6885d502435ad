"""Small charts, drawn as SVG on the server: no script, no style attribute, and a table behind each for who cannot see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

WIDTH: Final = 720
HEIGHT: Final = 120
_GAP: Final = 4
_COLUMNS: Final = 144  # of a line: ten minutes of a day each
_ROWS: Final = 24  # of the table behind a line
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


class Line(NamedTuple):
    """A chart of one figure over time.

    Attributes:
        path: What is drawn, in SVG's words; a gap is where nothing was told.
        least, most, last: Of the values; None if there is none.
        top: What the upper edge stands for.
        rows: For the table: from when, and the highest value since; None where nothing was told.
    """

    path: str
    least: float | None
    most: float | None
    last: float | None
    top: float
    rows: tuple[tuple[datetime, float | None], ...]
    width: int = WIDTH
    height: int = HEIGHT


def draw_line(
    points: Iterable[tuple[datetime, float | None]], since: datetime, until: datetime, top: float = 0
) -> Line:
    """Return a chart of points, the oldest first. Of points that fall into one column the highest is drawn.

    Args:
        points: Times and values of at least 0; below that they are drawn at 0.
        since, until: Its edges; what lies outside is left out.
        top: What the upper edge stands for at least.
    """
    told = [(at, value) for at, value in points if value is not None and since <= at <= until]
    values = [value for _, value in told]
    top = max([top, *values]) or 1
    columns = _highest(told, since, until, _COLUMNS)
    step = WIDTH / _COLUMNS
    path = ""
    for index, value in enumerate(columns):
        if value is not None:
            x, y = (index + 0.5) * step, HEIGHT * (1 - max(0, value) / top)
            joined = index > 0 and columns[index - 1] is not None
            path += f"{'L' if joined else 'M'}{x:.1f} {y:.1f}" + ("" if joined else "h.1")
    rows = _highest(told, since, until, _ROWS)
    length = (until - since) / _ROWS
    return Line(
        path,
        min(values, default=None),
        max(values, default=None),
        values[-1] if values else None,
        top,
        tuple((since + index * length, value) for index, value in enumerate(rows)),
    )


def _highest(
    told: Sequence[tuple[datetime, float]], since: datetime, until: datetime, count: int
) -> list[float | None]:
    """Return the highest value of each of so many equal parts of a time."""
    found: list[float | None] = [None] * count
    length = max((until - since) / count, timedelta(microseconds=1))
    for at, value in told:
        index = min(count - 1, (at - since) // length)
        before = found[index]
        found[index] = value if before is None else max(before, value)
    return found

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_cell import RunningCell, StartCell


@pytest.fixture
def start_cell(tmp_path: Path) -> Iterator[StartCell]:
    """Start cells; every one is ended after the test."""
    cells: list[RunningCell] = []

    def start(*, started: bool = True, **policy: Any) -> RunningCell:
        folder = tmp_path / str(len(cells))
        folder.mkdir()
        cells.append(RunningCell(folder, **policy))
        return cells[-1].start() if started else cells[-1]

    yield start
    for cell in cells:
        cell.close()


@pytest.fixture
def cell(start_cell: StartCell) -> RunningCell:
    """A cell with everything as it usually is."""
    return start_cell()

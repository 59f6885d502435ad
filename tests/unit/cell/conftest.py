from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from running_cell import RunningCell, StartCell, credentials


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


@pytest.fixture
def sdk(cell: RunningCell) -> Any:
    """The OpenAI SDK as it is; only the way to the socket is ours."""
    with (
        cell.client() as http,
        openai.OpenAI(
            api_key=credentials()["Authorization"].removeprefix("Bearer "),
            base_url="http://cell/v1",
            http_client=http,
            default_headers={"X-Peer-Address": credentials()["X-Peer-Address"]},
            max_retries=0,
        ) as client,
    ):
        yield client

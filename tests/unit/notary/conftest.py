from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from notary_world import paths_in

from appliance.core.node import NodePaths


@pytest.fixture
def paths() -> Iterator[NodePaths]:
    with tempfile.TemporaryDirectory(prefix="apl-n-") as folder:  # short: a socket's path has 108 bytes
        yield paths_in(Path(folder))

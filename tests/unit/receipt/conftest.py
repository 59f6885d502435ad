"""These tests run the parts together, so they speak with the worlds that each part's own tests have."""

from __future__ import annotations

import sys
from pathlib import Path

UNIT = Path(__file__).parents[1]
sys.path += [str(UNIT / part) for part in ("cell", "notary", "transparency", "control")]

from control_cast import journal_can_be_emptied  # noqa: F401 - a fixture

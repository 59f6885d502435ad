"""Golden files: what a renderer wrote when somebody looked at it. `UPDATE_GOLDEN=1 pytest …` writes them anew."""

import os
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "golden"


def check(name: str, text: str) -> None:
    """Compare a text with `tests/golden/<name>`."""
    file = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8")

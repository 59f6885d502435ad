"""A line on standard error that says how far reading a file is, where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_WIDTH: Final = 30  # of the bar, in characters


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that is told what is read, the bytes done, and all of them. Without a terminal nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    last = ""

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        share = done / total if total else 1.0
        line = f"{what}  [{'#' * int(share * _WIDTH):{_WIDTH}}] {share:4.0%} of {total / 1e9:.2f} GB"
        if line != last:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            last = line

    try:
        yield show
    finally:
        if last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

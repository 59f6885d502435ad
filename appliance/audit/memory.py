"""What a process holds in memory, looked at from outside (proc(5), /proc/PID/maps and /proc/PID/mem), and what to look for."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

CHUNK_BYTES = 16 * 2**20
_SKIPPED = ("[vvar]", "[vsyscall]", "[vvar_vclock]")  # kernel pages that cannot be read this way


def make_canary() -> str:
    """Return a text that occurs nowhere else: letters and digits only."""
    return "kanarie" + secrets.token_hex(12)


def forms(canary: str) -> tuple[bytes, ...]:
    """Return the byte patterns of a canary.

    UTF-8 (which is also the JSON and URL form of letters and digits), UTF-16 and UTF-32 as CPython and libraries may hold
    text, hexadecimal, and base64 at its three alignments.
    """
    plain = canary.encode("ascii")
    shifted = (base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4] for shift in range(3))
    return (plain, canary.encode("utf-16-le"), canary.encode("utf-32-le"), plain.hex().encode(), *shifted)


def read_memory(pid: int, *, writable: bool = False) -> Iterator[bytes]:
    """Yield the memory of a process in chunks, and an empty one after each region; nothing if it has ended.

    Args:
        pid: Of the process.
        writable: Only what it may write to; the pages of its programs are left out then.
    """
    wanted = "rw" if writable else "r"
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                span, rights, *rest = line.split()
                if rights.startswith(wanted) and rest[-1] not in _SKIPPED:
                    yield from _region(memory.fileno(), *(int(part, 16) for part in span.split("-")))
    except (
        OSError
    ):  # it ended meanwhile, so its memory is gone; whoever may not look sees it in the positive control
        return


def count_in(pieces: Iterable[bytes], needles: Sequence[bytes]) -> dict[bytes, int]:
    """Return how often each needle occurs; a piece may hold the first half of one and the next piece the other.

    Args:
        pieces: Text in a row; an empty piece ends it, and what follows is another.
        needles: What is looked for.
    """
    counts = dict.fromkeys(needles, 0)
    overlap = max(map(len, needles)) - 1
    tail = b""
    for piece in pieces:
        window = tail + piece
        for needle in counts:
            # A copy that lies wholly in the tail was counted with the piece before.
            counts[needle] += window.count(needle) - tail.count(needle)
        tail = window[-overlap:] if piece else b""
    return counts


def _region(memory: int, start: int, end: int) -> Iterator[bytes]:
    for offset in range(start, end, CHUNK_BYTES):
        try:
            yield os.pread(memory, min(CHUNK_BYTES, end - offset), offset)
        except OSError:  # a mapping beyond the end of its file
            return
    yield b""

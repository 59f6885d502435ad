"""Counts byte strings in the memory of another process: `engine_memory_scan.py PID MASK`.

The needles come on standard input as lines of hexadecimal digits, each byte XORed with MASK: the process that is looked
at never holds them in plain but where it should not. Looking from outside leaves no copies there either.
"""

from __future__ import annotations

import sys
from pathlib import Path

_WINDOW = 2**24


def count(pid: int, needles: list[bytes]) -> int:
    """Return how many of the needles are somewhere in writable memory of the process."""
    found: set[bytes] = set()
    overlap = max(map(len, needles))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if not rights.startswith("rw"):
                continue
            for window in range(start, end, _WINDOW):
                memory.seek(window)
                try:
                    data = memory.read(min(_WINDOW + overlap, end - window))
                except OSError:
                    continue
                found |= {needle for needle in needles if needle in data}
    return len(found)


if __name__ == "__main__":
    mask = int(sys.argv[2])
    masked = [bytes.fromhex(line) for line in sys.stdin.read().split()]
    print(count(int(sys.argv[1]), [bytes(byte ^ mask for byte in needle) for needle in masked]))

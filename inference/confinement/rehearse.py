"""Confine a process as a cell would be, serve nothing, and say what came of it. `appliance doctor` runs it.

    python -s -P -m inference.confinement.rehearse

Prints one line: `confined ABI NETWORK`, or `refused PROPERTY`.
"""

from __future__ import annotations

import os
import sys

from inference.confinement import libc, syscalls
from inference.confinement.confine import Confiner, View
from inference.confinement.properties import EXIT_REFUSED, PropertyError


def main() -> int:
    """Rehearse; return the exit code that a cell would end with."""
    os.chdir("/")
    libc.syscall(syscalls.CLOSE_RANGE, 3, 2**32 - 1, 0)
    try:
        kept = Confiner(View((), frozenset((0, 1, 2)), in_namespace=False)).confine()
    except PropertyError as error:
        os.write(1, f"refused {error.prop}\n".encode("ascii"))
        return EXIT_REFUSED
    os.write(1, f"confined {kept.landlock_abi} {kept.network}\n".encode("ascii"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

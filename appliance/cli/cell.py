"""`appliance cell`: one client's confined server. Started by systemd or the launcher, never by hand.

The launcher runs `python -s -P -m inference.confinement.stub` instead, with the same arguments: it imports less.
"""

from __future__ import annotations

import argparse

from inference.confinement import stub

HELP = "Serve one client, confined. Started with its listening socket as descriptor 3 (LISTEN_FDS)."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    stub.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Confine this process and serve; return the cell's exit code."""
    return stub.run(args)

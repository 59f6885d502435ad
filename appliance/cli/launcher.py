"""`appliance launcher`: starts cells on demand where systemd is not PID 1."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from appliance.core.node import NodePaths, read_settings

HELP = (
    "Start a client's cell at its first connection, in namespaces of its own. A service; it runs until SIGTERM. "
    "Without root, or under another --root than /, cells run as the same user and confine themselves."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--root", type=Path, default=Path("/"), help="folder that stands for / (default: /)")
    parser.add_argument(
        "--plain", action="store_true", help="no namespaces from outside, although we are root"
    )
    parser.add_argument(
        "--after-exit",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="CMD",
        help="command to run after a cell has ended, at most every 5 s; takes all that follows",
    )


def run(args: argparse.Namespace) -> int:
    """Serve; return 0 after SIGTERM."""
    from inference.launcher.launcher import Isolation, run_launcher

    paths = NodePaths(args.root.absolute())
    paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    plain = os.geteuid() != 0 or args.root != Path("/")
    isolation = None if plain else Isolation.of(read_settings(paths.etc / "node.json"))
    asyncio.run(run_launcher(paths, isolation, args.after_exit))
    return 0

"""`appliance notary`: the service that signs and keeps a node's receipts."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from appliance.core.node import NodePaths, read_settings

HELP = "Sign and keep the receipts of this node. A service; it runs until SIGTERM."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--root", type=Path, default=Path("/"), help="folder that stands for / (default: /)")
    parser.add_argument(
        "--node", metavar="NAME", help="this node's name (default: what etc/appliance/node.json says)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve; return 0 after SIGTERM."""
    from inference.notary.notary import run_notary

    paths = NodePaths(args.root.absolute())
    node = args.node or read_settings(paths.etc / "node.json").node
    asyncio.run(run_notary(node, paths))
    return 0

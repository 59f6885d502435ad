"""`appliance agent`: the node's privileged half, a service."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Apply control's bundles on this node. Runs as root; reached over /run/appliance/agent.sock only."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--settings", type=Path, help="node.json (default: /etc/appliance/node.json)")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="folder that holds etc, run and var (for tests)"
    )
    parser.add_argument(
        "--relay-user", default="appliance-relay", help="user that may connect besides root, if it exists"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    from appliance.core.node import NodePaths, read_settings
    from netops.agent.service import start_agent

    paths = NodePaths(args.root)
    settings = read_settings(args.settings or paths.etc / "node.json")
    start_agent(settings, paths, args.relay_user).run()
    return 0

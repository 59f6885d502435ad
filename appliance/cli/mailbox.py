"""`appliance mailbox`: where devices leave what redeems their invitation, a service."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Take letters of devices that redeem an invitation, and hand out control's answers. A service; it runs until SIGTERM."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--root", type=Path, default=Path("/"), help="folder that stands for / (default: /)")


def run(args: argparse.Namespace) -> int:
    """Serve; return 0 after SIGTERM."""
    from appliance.core.node import NodePaths
    from netops.mailbox.service import serve_mailbox

    serve_mailbox(NodePaths(args.root.absolute()))
    return 0

"""How nodes are reached: by SSH, each host key pinned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from control.fleet.models import Node
from provisioning.channel import Connection
from provisioning.ssh import SshConnection, SshTarget

Connect = Callable[[Node], Connection]


def connect_by_ssh(node: Node, key_file: Path) -> Connection:
    """Return a connection, which is opened when it is used.

    Args:
        node: Where to.
        key_file: Control's private key, read anew for each connection.
    """
    return SshConnection(
        SshTarget(
            address=node.address,
            port=node.port,
            user=node.user,
            host_key=node.host_key,
            key_file=key_file,
        )
    )

"""The mailbox as a process: a Unix socket for NGINX, as a user who may write to the spool and nowhere else."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.core.errors import HostError
from appliance.core.node import NodePaths
from netops.mailbox.http import Http, Mailbox
from netops.mailbox.roster import RosterFile
from netops.mailbox.spool import Spool

CONNECTIONS = 64
HEADER_BYTES = 8192


class SilentProtocol(H11Protocol):
    """HTTP/1.1 that writes no request line to any log."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.access_log = False


def serve_mailbox(paths: NodePaths) -> None:
    """Serve until SIGTERM.

    Raises:
        HostError: If the socket cannot be made, or letters could not be kept.
    """
    os.umask(0o077)
    if not os.access(paths.mailbox, os.W_OK | os.X_OK):
        raise HostError(
            f"cannot write to {paths.mailbox}",
            hint="provision this node again (ansible/): the folder is the mailbox's user's",
        )
    mailbox = Mailbox(RosterFile(paths.roster), Spool(paths.mailbox), time.time)
    config = uvicorn.Config(
        Http(mailbox),
        loop="asyncio",
        http=SilentProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=5,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    with listen(paths.mailbox_socket) as listener:
        uvicorn.Server(config).run(sockets=[listener])


def listen(path: Path) -> socket.socket:
    """Listen on the socket. Its folder keeps out all but the mailbox's user and NGINX's group, so its own mode need not.

    Raises:
        HostError: If it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen on {path}: {error.strerror}") from error
    return listener

"""Receives hints on a Unix datagram socket."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from appliance.core.errors import HostError


class HintListener:
    """The socket that `control.hints` sends to. What is received means only: look now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(0o660)
        except OSError as error:
            self._socket.close()
            raise HostError(f"cannot listen on {path}", hint="run as the reconciler's user") from error

    def wait(self, timeout_s: float) -> bool:
        """Wait for a hint; return False if none came in time. Hints that pile up count as one."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.recv(16)
            self._socket.setblocking(False)
            while True:
                self._socket.recv(16)
        except TimeoutError:
            return False
        except BlockingIOError:
            return True

    def close(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

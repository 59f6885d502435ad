"""uvicorn on the inherited socket: it binds nothing, writes nothing, logs nothing and handles no signal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_KEEP_ALIVE_S: Final = 5
_HEADER_BYTES: Final = 32_768  # request line and headers; h11 refuses more
_CONNECTIONS: Final = 512  # NGINX limits each device long before; this protects the descriptors


class SilentProtocol(H11Protocol):
    """HTTP/1.1 that writes no request line to any log, however logging is set up in this process.

    uvicorn's own switch (`access_log=False`) changes the process-wide logger, which any later set-up of logging turns
    back on; a request line holds a path that the client chose.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False


class Server(uvicorn.Server):
    """A server that its owner stops, in two steps: accept no more, then end."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
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
                timeout_keep_alive=_KEEP_ALIVE_S,
                limit_concurrency=_CONNECTIONS,
                h11_max_incomplete_event_size=_HEADER_BYTES,
            )
        )

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until `finish`. The listener is closed then; its path in the file system is not touched."""
        listener.setblocking(False)
        await self.serve(sockets=[listener])
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()  # whoever has not read its answer by now gets no more of it
        await asyncio.sleep(0)

    def stop_accepting(self) -> None:
        """Leave new connections to whoever listens on the same socket next."""
        for server in getattr(self, "servers", []):
            server.close()

    def finish(self, *, within_s: int) -> None:
        """End when every connection is closed, at the latest after `within_s` seconds."""
        self.config.timeout_graceful_shutdown = within_s
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: the cell has its own order of ending."""
        yield

"""The launcher's process: one guard for each client, and the agent's socket (docs/spec/node-protocols.md section 4)."""

from __future__ import annotations

import asyncio
import grp
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from appliance.core.errors import HostError, RefusedError, UsageError
from appliance.core.names import Name
from appliance.core.node import NodePaths, NodeSettings
from appliance.core.schema import Closed
from inference.launcher.after_exit import AfterExit
from inference.launcher.guard import Guard
from inference.launcher.guard import listen as listen_for_client
from inference.launcher.spawn import STUB, Order
from inference.lines import MAX_CONTROL_LINE_BYTES, Request, listen, parse_request, serve_lines


class Clients(Closed):
    """The whole set of clients that may have a cell."""

    clients: Annotated[tuple[Name, ...], Field(max_length=4096)]


@dataclass(frozen=True)
class Isolation:
    """How cells are set apart from the launcher and each other when it runs as root.

    Attributes:
        first_uid: Of the users that cells run as, one each.
        nginx_group: Group id that may connect to a cell.
    """

    first_uid: int
    nginx_group: int

    @classmethod
    def of(cls, settings: NodeSettings) -> Isolation:
        """Read from the node's settings. Raises HostError if NGINX's group does not exist."""
        try:
            return cls(settings.cell_uid_base, grp.getgrnam(settings.nginx_group).gr_gid)
        except KeyError:
            raise HostError("NGINX's group does not exist", hint="install NGINX or set nginx_group") from None


@dataclass
class Launcher:
    """A running launcher.

    Attributes:
        paths: Where things are on this node.
        isolation: None: cells run as the launcher's own user and confine themselves.
        after_exit: Run after a cell has ended.
        program: The stub's command.
    """

    paths: NodePaths
    isolation: Isolation | None
    after_exit: AfterExit
    program: Sequence[str] = STUB
    _guards: dict[str, Guard] = field(default_factory=dict)
    _leaving: set[Guard] = field(default_factory=set)

    async def handle(self, request: Request) -> dict[str, Any]:
        """Carry out one request of the agent."""
        if request.op == "clients":
            return self.set_clients(Clients.parse({"clients": request.take("clients")[0]}).clients)
        if request.op == "cells":
            request.take()
            return {"cells": self._cells()}
        if request.op == "end":
            (client,) = request.take("client")
            return self._end(client)
        raise UsageError("no such op")

    def set_clients(self, clients: Sequence[str]) -> dict[str, Any]:
        """Guard exactly these clients: removals first."""
        removed = sorted(set(self._guards) - set(clients))
        added = sorted(set(clients) - set(self._guards))
        for client in removed:
            guard = self._guards.pop(client)
            guard.close()
            self._leaving.add(guard)
        for client in added:
            self._guards[client] = self._guard(client)
        return {"added": added, "removed": removed}

    def _guard(self, client: str) -> Guard:
        folder = self.paths.clients / client
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = folder / "http.sock"
        group = None if self.isolation is None else self.isolation.nginx_group
        listener = listen_for_client(path, group)
        order = Order(client, self.paths, self._free_uid(), listener, self.program)
        return Guard(order, path, self.after_exit.request)

    def _free_uid(self) -> int | None:
        """Return a user that no living cell has, also none of a removed client whose cell is still ending."""
        if self.isolation is None:
            return None
        self._leaving = {guard for guard in self._leaving if not guard.gone.is_set()}
        used = {guard.order.uid for guard in (*self._guards.values(), *self._leaving)}
        return next(n for n in range(self.isolation.first_uid, 2**32 - 2) if n not in used)

    def _cells(self) -> list[dict[str, Any]]:
        running = [(client, guard.pid) for client, guard in sorted(self._guards.items()) if guard.pid]
        return [{"client": client, "pid": pid, "rss_bytes": resident_bytes(pid)} for client, pid in running]

    def _end(self, client: Any) -> dict[str, Any]:
        guard = self._guards.get(client) if isinstance(client, str) else None
        if guard is None:
            raise RefusedError("no such client", field="client")
        guard.end()
        return {}

    async def aclose(self) -> None:
        """Stop listening and end every cell."""
        self.set_clients(())
        self.after_exit.close()
        for guard in self._leaving:
            await guard.gone.wait()


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory in bytes, 0 if it is gone (proc_pid_statm(5))."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def observe_clients(paths: NodePaths) -> tuple[str, ...]:
    """Return the clients that have a policy: after a restart they are served before the agent says anything."""
    return tuple(sorted(policy.parent.name for policy in paths.clients.glob("*/policy.json")))


async def run_launcher(
    paths: NodePaths, isolation: Isolation | None, command: Sequence[str], program: Sequence[str] = STUB
) -> None:
    """Run until SIGTERM or SIGINT; then end every cell."""
    # A descriptor for each client and three for each cell.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    launcher = Launcher(paths, isolation, AfterExit(command), program)
    launcher.set_clients(Clients.parse({"clients": observe_clients(paths)}).clients)
    server = await listen(
        paths.launcher_socket,
        lambda reader, writer: serve_lines(reader, writer, parse_request, launcher.handle),
        mode=0o600,
        line_bytes=MAX_CONTROL_LINE_BYTES,
    )
    try:
        await stop.wait()
    finally:
        server.close()
        paths.launcher_socket.unlink(missing_ok=True)
        await launcher.aclose()

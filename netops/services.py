"""The node's other services, as the agent drives them: the notary, and whoever starts cells.

Both are told the whole set of clients each time, so a service that was restarted is right again after the next pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from appliance.core.node import NodePaths, NodeSettings
from netops import command
from netops.lines import call
from netops.model import Account

# A client that goes may take a cell that does not listen along: SIGTERM, 3 s, SIGKILL (node-protocols.md section 4).
SERVE_TIMEOUT_S = 30.0
STATUS_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Cell:
    """A running cell; memory in bytes."""

    client: str
    pid: int
    rss_bytes: int


class Cells(Protocol):
    """Who starts cells."""

    def observe(self) -> frozenset[str]:
        """Return the clients whose socket is listened on."""

    def serve(self, clients: Iterable[str]) -> None:
        """Listen for these clients and no others; cells of others end."""

    def running(self) -> list[Cell]:
        """Return the cells that run now."""


class Notary:
    """The notary's control socket."""

    def __init__(self, paths: NodePaths) -> None:
        self._socket = paths.notary_control
        self._clients = paths.notary_clients

    def observe(self) -> frozenset[str]:
        """Return the clients that have a notary.sock."""
        return _folders_with(self._clients, "notary.sock")

    def serve(self, clients: Mapping[str, Account]) -> None:
        """Tell it the whole set of clients. A budget that there is not is left out."""
        listed = [{"name": name, **_said(account)} for name, account in sorted(clients.items())]
        call(self._socket, "clients", clients=listed, timeout_s=SERVE_TIMEOUT_S)

    def status(self) -> dict[str, Any]:
        """Return what docs/spec/node-protocols.md section 2 says."""
        return dict(call(self._socket, "status", timeout_s=STATUS_TIMEOUT_S))

    def export(self, after: int, limit: int) -> dict[str, Any]:
        """Return receipts from its journal."""
        return dict(call(self._socket, "export", after=after, limit=limit, timeout_s=SERVE_TIMEOUT_S))

    def heartbeat(self, nonce: str) -> dict[str, Any]:
        """Ask it to sign what its journal is now."""
        return dict(call(self._socket, "heartbeat", nonce=nonce, timeout_s=STATUS_TIMEOUT_S))

    def note_admitted(self, position: int) -> dict[str, Any]:
        """Tell it that control has the receipts up to a position."""
        return dict(call(self._socket, "admitted", position=position, timeout_s=SERVE_TIMEOUT_S))

    def note_places(self, places: list[Any]) -> dict[str, Any]:
        """Tell it where in the log receipts are."""
        return dict(call(self._socket, "places", places=places, timeout_s=SERVE_TIMEOUT_S))


class LauncherCells:
    """Cells started by this product's launcher."""

    def __init__(self, paths: NodePaths) -> None:
        self._socket = paths.launcher_socket
        self._clients = paths.clients

    def observe(self) -> frozenset[str]:
        """Return the clients that have an http.sock."""
        return _folders_with(self._clients, "http.sock")

    def serve(self, clients: Iterable[str]) -> None:
        """Tell the launcher the whole set of clients."""
        call(self._socket, "clients", clients=sorted(clients), timeout_s=SERVE_TIMEOUT_S)

    def running(self) -> list[Cell]:
        """Ask the launcher."""
        result = call(self._socket, "cells", timeout_s=STATUS_TIMEOUT_S)
        return [Cell(str(c["client"]), int(c["pid"]), int(c["rss_bytes"])) for c in result["cells"]]


class SystemdCells:
    """Cells started by systemd: one instance of `appliance-cell@.socket` and `.service` for each client.

    Starting and stopping instances needs no `daemon-reload`, which would slow with the number of units.
    """

    def observe(self) -> frozenset[str]:
        """Return the instances whose socket unit is active."""
        return frozenset(_instance(unit["unit"]) for unit in self._units("socket"))

    def serve(self, clients: Iterable[str]) -> None:
        """Start and stop socket units; a stopped client's service is stopped as well."""
        want, have = frozenset(clients), self.observe()
        gone = [
            f"appliance-cell@{client}.{kind}"
            for client in sorted(have - want)
            for kind in ("socket", "service")
        ]
        new = [f"appliance-cell@{client}.socket" for client in sorted(want - have)]
        for verb, units in (("stop", gone), ("start", new)):
            if units:
                command.run(["systemctl", verb, *units], quote_error=True)

    def running(self) -> list[Cell]:
        """Ask systemd for the active services' main processes and memory."""
        cells = []
        for unit in self._units("service"):
            shown = command.run(["systemctl", "show", "--property=MainPID,MemoryCurrent", unit["unit"]])
            values = dict(line.split("=", 1) for line in shown.decode("ascii").splitlines())
            if values.get("MainPID", "0") != "0" and values.get("MemoryCurrent", "").isdigit():
                client = _instance(unit["unit"])
                cells.append(Cell(client, int(values["MainPID"]), int(values["MemoryCurrent"])))
        return cells

    def _units(self, kind: str) -> list[dict[str, str]]:
        pattern = f"appliance-cell@*.{kind}"
        listed = command.run(["systemctl", "list-units", "--output=json", "--state=active", pattern])
        return list(json.loads(listed or b"[]"))


def make_cells(settings: NodeSettings, paths: NodePaths) -> Cells:
    """Return who starts cells on this node."""
    return SystemdCells() if settings.services == "systemd" else LauncherCells(paths)


def _said(account: Account) -> dict[str, Any]:
    return {name: value for name, value in asdict(account).items() if value is not None}


def _instance(unit: str) -> str:
    return unit.partition("@")[2].rpartition(".")[0]


def _folders_with(folder: Path, socket: str) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir() if (entry / socket).is_socket())
    except FileNotFoundError:
        return frozenset()

"""Policies, routes and seats under /run/appliance: observe and apply."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from appliance.core.node import NodePaths
from appliance.core.storage import read_or_none, write_atomic
from netops.mailbox.roster import parse_roster
from netops.mailbox.spool import Letter, clear_letters, read_letters
from netops.model import Files

POLICY = "policy.json"
SOCKET = "http.sock"


class NodeFiles:
    """What the agent writes for cells and NGINX. No file here holds a key: policies carry digests of tokens."""

    def __init__(self, paths: NodePaths) -> None:
        self._paths = paths

    def prepare(self) -> None:
        """Make the folders of a node that are not there."""
        for folder, mode in (
            (self._paths.var, 0o755),
            (self._paths.state, 0o700),
            (self._paths.keys, 0o700),
            (self._paths.models.parent, 0o755),
            (self._paths.models, 0o755),
            (self._paths.log, 0o755),
            (self._paths.run, 0o755),
            (self._paths.clients, 0o755),
            (self._paths.peers, 0o755),
            (self._paths.seats, 0o755),
            (self._paths.nginx, 0o755),
        ):
            _make_folder(folder, mode)

    def observe(self) -> Files:
        """Read what is there."""
        clients = {entry.name for entry in self._paths.clients.iterdir() if entry.is_dir()}
        return Files(
            policies={name: read_or_none(self._policy(name)) or b"" for name in sorted(clients)},
            # Twice as many links as devices: plain strings, since Path objects cost more than the system calls.
            routes={entry.name: _client_of(entry.path) for entry in os.scandir(self._paths.peers)},
            seats=frozenset(entry.name for entry in self._paths.seats.iterdir()),
            roster=read_or_none(self._paths.roster),
        )

    def policies(self, clients: Iterable[str]) -> dict[str, bytes]:
        """Return the policies of those of these clients that have one."""
        found = {client: read_or_none(self._policy(client)) for client in clients}
        return {client: data for client, data in found.items() if data}

    def write_policies(self, policies: Mapping[str, bytes]) -> None:
        """Replace policies; a cell sees the old one or the new one."""
        for client, policy in policies.items():
            _make_folder(self._policy(client).parent, 0o755)
            write_atomic(self._policy(client), policy, 0o644)

    def remove_clients(self, clients: Iterable[str]) -> None:
        """Remove clients' folders."""
        for client in clients:
            folder = self._paths.clients / client
            for entry in folder.iterdir() if folder.is_dir() else ():
                entry.unlink()
            if folder.is_dir():
                folder.rmdir()

    def write_routes(self, routes: Mapping[str, str]) -> None:
        """Make links; one that is there is replaced without a moment of absence."""
        # By names within the open folder: with ten thousand devices the walk to it is half of the time.
        folder = os.open(self._paths.peers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, client in routes.items():
                _link(_target(client), name, folder)
        finally:
            os.close(folder)

    def remove_routes(self, names: Iterable[str]) -> None:
        """Remove links."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._paths.peers}/{name}")

    def write_roster(self, roster: bytes | None) -> None:
        """Replace the roster, and clear the spool of letters whose guests are gone."""
        if roster is None:
            self._paths.roster.unlink(missing_ok=True)
        else:
            write_atomic(self._paths.roster, roster, 0o644)
        clear_letters(self._paths.mailbox, parse_roster(roster or b"").digests())

    def letters(self) -> list[Letter]:
        """Return what the mailbox has taken."""
        return read_letters(self._paths.mailbox)

    def write_seats(self, names: Iterable[str]) -> None:
        """Make seat files; a cell takes one with flock(2), so they are empty."""
        for name in names:
            write_atomic(self._paths.seats / name, b"", 0o644)

    def remove_seats(self, names: Iterable[str]) -> None:
        """Remove seat files."""
        for name in names:
            (self._paths.seats / name).unlink(missing_ok=True)

    def _policy(self, client: str) -> Path:
        return self._paths.clients / client / POLICY


def _make_folder(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Not by mkdir's mode: the umask would narrow it, and NGINX and the cells' users must pass.
    if folder.stat().st_mode & 0o777 != mode:
        folder.chmod(mode)


def _link(target: str, name: str, folder: int) -> None:
    try:
        os.symlink(target, name, dir_fd=folder)
    except FileExistsError:
        temporary = f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        os.symlink(target, temporary, dir_fd=folder)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _target(client: str) -> str:
    return f"../clients/{client}/{SOCKET}"


def _client_of(link: str) -> str:
    """Return the client that a link leads to; what is no link of ours leads to no client's name."""
    try:
        target = os.readlink(link)
    except OSError:
        return "?"
    client = target.removeprefix("../clients/").removesuffix(f"/{SOCKET}")
    return client if target == _target(client) else "?"

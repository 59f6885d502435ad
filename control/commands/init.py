"""`appliance control init`: folders, keys, public material, settings file. Doing it twice changes nothing."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.core.errors import HostError, UsageError
from appliance.core.storage import write_new
from control.authority import DOMAIN
from control.config import ControlConfig, ControlPaths, Listen, Tls, read_config
from control.keyfiles import make_console_certificate, make_keys, publish

CONSOLE_NAME = f"control.{DOMAIN}"


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    parser = actions.add_parser("init", help="make keys, folders and the settings file; never overwrites")
    parser.add_argument("--state", type=Path, required=True, help="folder for keys, database and sockets")
    parser.add_argument("--listen", default="127.0.0.1:8443", metavar="ADDRESS:PORT")
    parser.add_argument("--plain-http", action="store_true", help="no TLS: something in front ends it")
    parser.add_argument("--reconciler-user", metavar="U", help="owns the private keys (root only)")
    parser.add_argument("--web-user", metavar="U", help="runs the console and the API (root only)")
    parser.set_defaults(handler=run, django=False)


@dataclass(frozen=True)
class Owners:
    """Numeric owners of what init makes: the reconciler's user and group, the web process's user and group."""

    reconciler: int
    reconciler_group: int
    web: int
    web_group: int


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing."""
    paths = ControlPaths(args.state.absolute())
    owners = find_owners(args.reconciler_user, args.web_user)
    listen = parse_listen(args.listen)
    make_folders(paths)
    made = make_keys(paths)
    publish(paths)
    if not args.plain_http:
        make_console_certificate(paths, (listen.address, CONSOLE_NAME))
    if not paths.database.exists():
        write_new(paths.database, b"", 0o660)
    config_file = args.config or paths.config
    if not config_file.exists():
        config_file.parent.mkdir(parents=True, exist_ok=True)
        write_new(config_file, render_config(paths, listen, tls=not args.plain_http), 0o644)
    read_config(config_file)
    set_owners(paths, owners)
    return {"ok": True, "config": str(config_file), "state": str(paths.state), "made": made}


def find_owners(reconciler: str | None, web: str | None) -> Owners:
    """Look the users up; without names, the one who runs this.

    Raises:
        HostError: If a user does not exist, or the reconciler's is not in the web user's group (they share the
            database).
    """
    if reconciler is None and web is None:
        return Owners(os.geteuid(), os.getegid(), os.geteuid(), os.getegid())
    if reconciler is None or web is None:
        raise UsageError("--reconciler-user and --web-user go together")
    try:
        ours, theirs = pwd.getpwnam(reconciler), pwd.getpwnam(web)
    except KeyError as error:
        raise HostError("no such user", hint="useradd --system U") from error
    if theirs.pw_gid not in os.getgrouplist(reconciler, ours.pw_gid):
        hint = f"usermod --append --groups {theirs.pw_gid} {reconciler}"
        raise HostError("the reconciler's user is not in the web user's group", hint=hint)
    return Owners(ours.pw_uid, ours.pw_gid, theirs.pw_uid, theirs.pw_gid)


def parse_listen(text: str) -> Listen:
    """Parse ADDRESS:PORT.

    Raises:
        UsageError: If it is not that, or names every address of the machine.
    """
    host, _, port = text.rpartition(":")
    try:
        return Listen(address=str(ipaddress.ip_address(host.strip("[]"))), port=int(port))
    except ValueError as error:
        hint = "one address on the management network, for example 10.0.0.1:8443"
        raise UsageError("--listen takes ADDRESS:PORT", hint=hint) from error


def make_folders(paths: ControlPaths) -> None:
    """Make the folders with their modes; a folder that is there keeps its mode."""
    modes = {
        paths.state: 0o755,
        paths.keys: 0o700,
        paths.public: 0o755,
        paths.log: 0o755,
        paths.web: 0o750,
        paths.database_folder: 0o2770,
        paths.models: 0o2770,
        paths.run: 0o2750,
    }
    for folder, mode in modes.items():
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(mode)


def render_config(paths: ControlPaths, listen: Listen, *, tls: bool) -> bytes:
    """Return the text of control.json."""
    if tls:
        files = Tls(certificate=str(paths.console_certificate), key=str(paths.console_key))
        listen = listen.model_copy(update={"tls": files})
    host = f"[{listen.address}]" if ":" in listen.address else listen.address
    hosts = tuple(dict.fromkeys([host, CONSOLE_NAME]))
    config = ControlConfig(state_dir=str(paths.state), allowed_hosts=hosts, listen=listen)
    return (json.dumps(config.model_dump(mode="json"), indent=2) + "\n").encode("utf-8")


def set_owners(paths: ControlPaths, owners: Owners) -> None:
    """Give everything to its user: private keys to the reconciler's, what is shared to the web's group too."""
    for path in _tree(paths.keys, paths.public, paths.log):
        os.chown(path, owners.reconciler, owners.reconciler_group)
    for path in _tree(paths.web):
        os.chown(path, owners.web, owners.web_group)
    for path in (*_tree(paths.database_folder, paths.run), paths.models):
        mode = path.stat().st_mode
        os.chown(path, owners.reconciler, owners.web_group)
        path.chmod(mode & 0o7777)  # chown(2) clears the set-group-id bit


def _tree(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield folder
        yield from folder.iterdir()

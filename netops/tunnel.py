"""The tunnel interface and its peers, in the kernel: observe and apply.

Only `wg` is used for peers (it drives the kernel's WireGuard and wireguard-go alike), never `setconf` or `syncconf`:
the first cuts every session off, the second resets handshake timers when nothing changed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.core.errors import HostError
from appliance.core.storage import write_atomic
from netops import command, wireguard
from netops.model import Interface, Peer

Kind = Literal["kernel", "wireguard-go"]
USERSPACE_START_S = 15.0
CONTROL_SOCKETS = Path("/var/run/wireguard")  # wg(8), ENVIRONMENT; one folder for all network namespaces
REMOVALS_PER_CALL = 500  # 25 kB of arguments, far below execve(2)'s limit


@dataclass(frozen=True)
class Observed:
    """The interface as it is, None for everything if there is none."""

    kind: Kind | None
    interface: Interface | None
    peers: tuple[wireguard.PeerStatus, ...]


class Tunnel:
    """One WireGuard interface.

    Args:
        name: Its name.
        private_key: File of the node's private key, base64.
        run: Folder for the pid file of wireguard-go.
    """

    def __init__(self, name: str, private_key: Path, run: Path) -> None:
        self._name = name
        self._private_key = private_key
        self._pid_file = run / "wireguard-go.pid"
        # Kept so that it is reaped. It has its own process group and outlives the agent: a restart of the agent must
        # not cut tunnels.
        self._userspace: subprocess.Popen[bytes] | None = None

    def observe(self) -> Observed:
        """Read the interface and its peers.

        Raises:
            HostError: If something else than WireGuard has the interface's name.
        """
        if self._userspace is not None:
            self._userspace.poll()
        link = self._link()
        if link is None:
            return Observed(None, None, ())
        code, output, _ = command.attempt(["wg", "show", self._name, "dump"])
        if code != 0:
            raise HostError(
                f"{self._name} exists and is not a WireGuard interface",
                hint=f"remove it (`ip link delete {self._name}`) or name another in node.json",
            )
        dump = wireguard.parse_dump(output.decode("ascii"))
        interface = Interface(
            public_key=dump.public_key,
            listen_port=dump.listen_port,
            addresses=frozenset(_addresses(link)),
            mtu=int(link["mtu"]),
            up="UP" in link["flags"],
        )
        kind: Kind = "kernel" if link.get("linkinfo", {}).get("info_kind") == "wireguard" else "wireguard-go"
        return Observed(kind, interface, dump.peers)

    def configure(self, want: Interface, *, create: bool) -> None:
        """Create the interface, or set what differs; peers stay as they are."""
        if create:
            self._create()
        key = str(self._private_key)
        command.run(["wg", "set", self._name, "listen-port", str(want.listen_port), "private-key", key])
        link = self._link()
        held = set(_addresses(link)) if link else set()
        for address in sorted(want.addresses - held):
            # No duplicate address detection: the tunnel has no neighbours to ask, and it would delay NGINX's bind.
            family = ["nodad"] if ":" in address else []
            command.run(["ip", "address", "add", address, "dev", self._name, *family], quote_error=True)
        command.run(["ip", "link", "set", "dev", self._name, "mtu", str(want.mtu), "up"], quote_error=True)

    def remove_addresses(self, addresses: Iterable[str]) -> None:
        """Take addresses off the interface."""
        for address in addresses:
            command.run(["ip", "address", "del", address, "dev", self._name], quote_error=True)

    def delete(self) -> None:
        """Delete the interface; wireguard-go ends by itself when its interface goes."""
        command.run(["ip", "link", "delete", self._name], quote_error=True)

    def remove_peers(self, public_keys: Iterable[str]) -> None:
        """Remove peers. One that is not there is no error."""
        keys = list(public_keys)
        for start in range(0, len(keys), REMOVALS_PER_CALL):
            batch = keys[start : start + REMOVALS_PER_CALL]
            arguments = [word for key in batch for word in ("peer", key, "remove")]
            command.run(["wg", "set", self._name, *arguments])

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Add peers, or change them in place."""
        # Through standard input: the text holds pre-shared keys.
        command.run(["wg", "addconf", self._name, "/dev/stdin"], stdin=wireguard.render_peers(peers))

    def _create(self) -> None:
        code, _, _ = command.attempt(["ip", "link", "add", "dev", self._name, "type", "wireguard"])
        if code != 0:
            self._start_userspace()
        # Link-local addresses would be one more thing that answers.
        command.run(["ip", "link", "set", "dev", self._name, "addrgenmode", "none"], quote_error=True)

    def _start_userspace(self) -> None:
        try:
            self._userspace = subprocess.Popen(
                # In the foreground: the form that makes itself a daemon was seen to die in one of two namespaces.
                ["wireguard-go", "--foreground", self._name],
                env={**command.ENVIRONMENT, "LOG_LEVEL": "silent"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        except FileNotFoundError as error:
            raise HostError(
                "the kernel has no WireGuard and wireguard-go is not installed",
                hint="apt install wireguard-go, or boot a kernel with the wireguard module",
            ) from error
        write_atomic(self._pid_file, f"{self._userspace.pid}\n".encode("ascii"), 0o644)
        deadline = time.monotonic() + USERSPACE_START_S
        while time.monotonic() < deadline and self._userspace.poll() is None:
            # `wg` removes a control socket that refuses it, so it must not be asked before somebody listens there.
            if self._listens() and command.attempt(["wg", "show", self._name, "listen-port"])[0] == 0:
                return
            time.sleep(0.02)
        self._userspace.kill()
        code = self._userspace.wait()
        raise HostError(
            f"wireguard-go did not start (exit code {code})", hint="is /dev/net/tun there and readable?"
        )

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            return control.connect_ex(str(CONTROL_SOCKETS / f"{self._name}.sock")) == 0

    def _link(self) -> dict[str, Any] | None:
        code, output, _ = command.attempt(["ip", "-json", "-details", "address", "show", "dev", self._name])
        if code != 0:
            return None
        links = json.loads(output)
        return dict(links[0]) if links else None


def end_userspace(run: Path) -> None:
    """End the wireguard-go that a pid file names, if it still is one (the lab does this; a node never)."""
    try:
        pid = int((run / "wireguard-go.pid").read_text("ascii"))
        if b"wireguard-go" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, 15)
    except (OSError, ValueError):
        return


def _addresses(link: dict[str, Any]) -> Iterator[str]:
    for info in link.get("addr_info", ()):
        if info.get("scope") != "link":
            yield f"{info['local']}/{info['prefixlen']}"

"""The throw-away tunnel of an invitation: up for as long as a device enrols, beside whatever other tunnel there is.

By the kernel's WireGuard, or by wireguard-go where the kernel has none. Nothing but the node's own address is routed into it, with the
last metric, so a tunnel to the same node that is up already keeps its packets; sockets of ours name the interface.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from appliance.core.errors import HostError
from appliance.core.names import encode_base64
from appliance.core.ticket import Ticket
from netops import command

INTERFACE: Final = "sa-enrol"
_METRIC: Final = "4242"
_READY_S: Final = 5.0
WITHOUT_ROOT: Final = (
    "run it with sudo; or `appliance client enroll INVITATION --write-tunnel FILE`, bring FILE up with whatever"
    " speaks WireGuard here, then `appliance client enroll INVITATION --no-tunnel`"
)


@contextmanager
def guest_tunnel(ticket: Ticket) -> Iterator[str]:
    """Bring the tunnel up, yield its interface's name, and take it down again.

    Raises:
        HostError: If we are not root, or a tool fails.
    """
    if os.geteuid() != 0:
        raise HostError("a tunnel needs root", hint=WITHOUT_ROOT)
    command.attempt(["ip", "link", "delete", INTERFACE])  # what a run that was killed left
    user_space = _create()
    try:
        command.run(["wg", "setconf", INTERFACE, "/dev/stdin"], stdin=render_setconf(ticket).encode("ascii"))
        command.run(["ip", "address", "add", f"{ticket.address4}/32", "dev", INTERFACE])
        command.run(["ip", "link", "set", INTERFACE, "mtu", str(ticket.mtu), "up"])
        command.run(["ip", "route", "add", f"{ticket.node4}/32", "dev", INTERFACE, "metric", _METRIC])
        yield INTERFACE
    finally:
        command.attempt(["ip", "link", "delete", INTERFACE])
        if user_space is not None:
            user_space.terminate()
            user_space.wait()


def render_setconf(ticket: Ticket) -> str:
    """Return the tunnel as wg(8) takes it."""
    return f"[Interface]\n{_private_key(ticket)}{_peer(ticket)}"


def render_wg_quick(ticket: Ticket) -> str:
    """Return the tunnel as wg-quick(8) and its kind take it."""
    addresses = f"Address = {ticket.address4}/32, {ticket.address6}/128\nMTU = {ticket.mtu}\n"
    return f"[Interface]\n{_private_key(ticket)}{addresses}{_peer(ticket)}"


def _private_key(ticket: Ticket) -> str:
    return f"PrivateKey = {encode_base64(ticket.keys.private_key)}\n"


def _peer(ticket: Ticket) -> str:
    return (
        "[Peer]\n"
        f"PublicKey = {ticket.node_public_key}\n"
        f"PresharedKey = {encode_base64(ticket.keys.preshared_key)}\n"
        f"AllowedIPs = {ticket.node4}/32, {ticket.node6}/128\n"
        f"Endpoint = {ticket.endpoint}\n"
    )


def _create() -> subprocess.Popen[bytes] | None:
    """Make the interface; return the process that carries it, None where the kernel does."""
    code, _, _ = command.attempt(["ip", "link", "add", INTERFACE, "type", "wireguard"])
    if code == 0:
        return None
    try:
        process = subprocess.Popen(
            ["wireguard-go", "-f", INTERFACE],
            env=command.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise HostError("there is no WireGuard on this machine", hint="apt install wireguard-go") from error
    deadline = time.monotonic() + _READY_S
    while command.attempt(["wg", "show", INTERFACE])[0] != 0:
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            process.wait()
            raise HostError("wireguard-go does not start", hint="is there a /dev/net/tun? appliance doctor")
        time.sleep(0.02)
    return process

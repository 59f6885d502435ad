"""A client machine's end of the tunnel, brought up from the configuration file that control gave out.

A person runs `wg-quick up`; this does the same steps one by one, since wg-quick's background start of wireguard-go is
not reliable in a network namespace.
"""

from __future__ import annotations

import sys
import time

from appliance.core.errors import HostError
from appliance.lab.machine import Machine
from appliance.lab.topology import TUNNEL

SOCKET_TIMEOUT_S = 5.0
HANDSHAKE_TIMEOUT_S = 30.0


def bring_up(machine: Machine, configuration: str) -> None:
    """Make the interface, give it keys, addresses and routes.

    Args:
        machine: The client.
        configuration: Path of a wg-quick(8) file in the machine.
    """
    text = (machine.root / configuration.lstrip("/")).read_text("utf-8")
    if machine.run("ip", "link", "add", TUNNEL, "type", "wireguard", check=False).returncode:
        machine.service("wireguard-go", "wireguard-go", "-f", TUNNEL)
        _wait_for_interface(machine)
    stripped = machine.run("wg-quick", "strip", configuration).stdout
    machine.run("wg", "setconf", TUNNEL, "/dev/stdin", stdin=stripped)
    for address in _values(text, "Address"):
        machine.run("ip", "address", "add", address, "dev", TUNNEL, *(["nodad"] if ":" in address else []))
    for mtu in _values(text, "MTU"):
        machine.run("ip", "link", "set", TUNNEL, "mtu", mtu)
    machine.run("ip", "link", "set", TUNNEL, "up")
    _route(machine)


def _route(machine: Machine) -> None:
    """Send what WireGuard's peers may have into the tunnel."""
    for line in machine.run("wg", "show", TUNNEL, "allowed-ips").stdout.splitlines():
        for network in line.split()[1:]:
            machine.run("ip", "route", "replace", network, "dev", TUNNEL)


def first_handshake(machine: Machine, address: str) -> float:
    """Send the tunnel's first packet and return the milliseconds until the handshake was complete.

    A node that has not applied this device's bundle yet answers nothing, so a lost first try is repeated as
    WireGuard itself does it (after 5 s); what counts is the try that succeeded.

    Raises:
        HostError: If there is no handshake within HANDSHAKE_TIMEOUT_S.
    """
    deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S
    while time.monotonic() < deadline:
        milliseconds = machine.run(sys.executable, "-I", "-c", _HANDSHAKE, TUNNEL, address).stdout.strip()
        if milliseconds != "none":
            return float(milliseconds)
        # A new interface state forgets the running retry timer, so that the next try starts at once.
        machine.run("ip", "link", "set", TUNNEL, "down")
        machine.run("ip", "link", "set", TUNNEL, "up")
        _route(machine)
    raise HostError(f"{machine.name}: no handshake with the node", hint="appliance node observe, on the node")


_HANDSHAKE = """
import socket, subprocess, sys, time
interface, address = sys.argv[1:]
started = time.perf_counter()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
    first.sendto(b"", (address, 9))
while time.perf_counter() - started < 1.0:
    shown = subprocess.run(["wg", "show", interface, "latest-handshakes"], capture_output=True, text=True).stdout
    if any(int(line.split()[1]) for line in shown.splitlines()):
        print(round((time.perf_counter() - started) * 1000, 1))
        break
    time.sleep(0.001)
else:
    print("none")
"""


def _wait_for_interface(machine: Machine) -> None:
    deadline = time.monotonic() + SOCKET_TIMEOUT_S
    while time.monotonic() < deadline:
        if machine.run("wg", "show", TUNNEL, check=False).returncode == 0:
            return
        time.sleep(0.02)
    raise HostError(
        f"{machine.name}: neither the kernel's WireGuard nor wireguard-go starts", hint="appliance doctor"
    )


def _values(text: str, key: str) -> list[str]:
    """Return the comma-separated values of a key, over all its lines."""
    lines = [line.split("=", 1)[1] for line in text.splitlines() if line.split("=", 1)[0].strip() == key]
    return [value.strip() for line in lines for value in line.split(",")]

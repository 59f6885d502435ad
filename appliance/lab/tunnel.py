"""A client machine's end of the tunnel, brought up from the configuration file that control gave out.

A person runs `wg-quick up`; this does the same steps one by one, since wg-quick's background start of wireguard-go is
not reliable in a network namespace.
"""

from __future__ import annotations

import time

from appliance.core.errors import HostError
from appliance.lab.machine import Machine
from appliance.lab.topology import TUNNEL

SOCKET_TIMEOUT_S = 5.0


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
    for network in _values(text, "AllowedIPs"):
        machine.run("ip", "route", "replace", network, "dev", TUNNEL)


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

"""The lab's cables: one outer network through a bridge, one management link.

Every machine on the outer network has static neighbour entries for every other, so that a probe leaves and an answer
could come back even where neighbour discovery is dropped: silence then is the firewall's doing, not the wire's.
"""

from __future__ import annotations

import subprocess

from appliance.lab.machine import Machine
from appliance.lab.topology import (
    MANAGEMENT,
    MGMT,
    MGMT_ADDRESS,
    NODE,
    NODE_MGMT_ADDRESS,
    ON_THE_WAN,
    OUTER,
    STRANGER,
    SWITCH,
    TUNNEL_NETWORK4,
    TUNNEL_NETWORK6,
    MachineSpec,
    mac,
)


def connect(machines: dict[str, Machine]) -> None:
    """Plug every cable in and give every interface its address."""
    switch = machines[SWITCH.name]
    switch.run("ip", "link", "add", "br0", "type", "bridge")
    switch.run("ip", "link", "set", "br0", "up")
    for spec in ON_THE_WAN:
        _plug_outer(switch, machines[spec.name], spec)
    for spec in ON_THE_WAN:
        _know_neighbours(machines[spec.name], spec)
    _plug_management(machines[MGMT.name], machines[NODE.name])
    _weak_host_route(machines[STRANGER.name])


def _plug_outer(switch: Machine, machine: Machine, spec: MachineSpec) -> None:
    port = f"p-{spec.name}"
    _veth(switch, port, machine, OUTER, mac(spec))
    switch.run("ip", "link", "set", port, "master", "br0", "up")
    machine.run("ip", "address", "add", f"{spec.outer4}/24", "dev", OUTER)
    machine.run("ip", "address", "add", f"{spec.outer6}/64", "dev", OUTER, "nodad")
    machine.run("ip", "link", "set", OUTER, "up")


def _veth(owner: Machine, port: str, machine: Machine, interface: str, address: str) -> None:
    # `ip … netns PID` looks the pid up in its own /proc: so enter the owner's network namespace only, on the host.
    argv = ["nsenter", "-t", str(owner.pid), "-n", "ip", "link", "add", port, "type", "veth"]
    argv += ["peer", "name", interface, "address", address, "netns", str(machine.pid)]
    subprocess.run(argv, check=True, capture_output=True)


def _know_neighbours(machine: Machine, spec: MachineSpec) -> None:
    for other in ON_THE_WAN:
        if other is spec:
            continue
        for address in (other.outer4, other.outer6):
            command = ["ip", "neighbour", "replace", str(address), "lladdr", mac(other)]
            machine.run(*command, "dev", OUTER, "nud", "permanent")


def _plug_management(mgmt: Machine, node: Machine) -> None:
    _veth(mgmt, NODE.name, node, MANAGEMENT, "02:00:5e:00:64:01")
    mgmt.run("ip", "address", "add", f"{MGMT_ADDRESS}/31", "dev", NODE.name)
    mgmt.run("ip", "link", "set", NODE.name, "up")
    node.run("ip", "address", "add", f"{NODE_MGMT_ADDRESS}/31", "dev", MANAGEMENT)
    node.run("ip", "link", "set", MANAGEMENT, "up")


def _weak_host_route(stranger: Machine) -> None:
    """Let the stranger try the tunnel's addresses through the node's outer interface (Linux's weak host model)."""
    stranger.run("ip", "route", "add", TUNNEL_NETWORK4, "via", str(NODE.outer4), "dev", OUTER)
    stranger.run("ip", "-6", "route", "add", TUNNEL_NETWORK6, "via", str(NODE.outer6), "dev", OUTER)

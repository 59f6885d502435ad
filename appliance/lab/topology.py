"""Which machines the lab has and how they are wired. Data only.

wan 203.0.113.0/24, 2001:db8:113::/64 (RFC 5737, RFC 3849)         management 198.51.100.0/31
───┬──────────┬──────────┬───────────┬───                          mgmt ───────────── node-a
 node-a      acme       bolt      stranger
"""

from __future__ import annotations

from dataclasses import dataclass

TUNNEL_NETWORK4 = "10.86.0.0/16"
TUNNEL_NETWORK6 = "fd86:5e:1::/64"
TUNNEL_ADDRESS4 = "10.86.0.1"
TUNNEL_ADDRESS6 = "fd86:5e:1::1"
WIREGUARD_PORT = 51820

MGMT_ADDRESS = "198.51.100.0"
NODE_MGMT_ADDRESS = "198.51.100.1"
CONSOLE_PORT = 8443

OUTER = "wan0"
"""Name of the interface on the outer network, the same in every machine."""
MANAGEMENT = "mgmt0"
"""Name of the management interface."""
TUNNEL = "wg0"
"""Name of the tunnel interface."""


@dataclass(frozen=True)
class MachineSpec:
    """One machine.

    Attributes:
        name: Host name.
        outer4, outer6: Addresses on the outer network, None if it is not there.
        disk_mib: Size of its disk in MiB; 0 keeps what it writes in RAM.
    """

    name: str
    outer4: str | None = None
    outer6: str | None = None
    disk_mib: int = 0


SWITCH = MachineSpec("wan")
MGMT = MachineSpec("mgmt")
NODE = MachineSpec("node-a", "203.0.113.10", "2001:db8:113::10", disk_mib=192)
ACME = MachineSpec("acme", "203.0.113.21", "2001:db8:113::21")
BOLT = MachineSpec("bolt", "203.0.113.22", "2001:db8:113::22")
STRANGER = MachineSpec("stranger", "203.0.113.66", "2001:db8:113::66")

MACHINES = (SWITCH, MGMT, NODE, ACME, BOLT, STRANGER)
CLIENTS = (ACME, BOLT)
ON_THE_WAN = (NODE, ACME, BOLT, STRANGER)


READING_MODEL = "tiny-reader"
"""The shipped model, pinned for the first client."""
ENDLESS_MODEL = "tiny-random"
"""A model of random weights that goes on until it is stopped, pinned for the second client, whose streams must last."""
MODEL_OF = {ACME.name: READING_MODEL, BOLT.name: ENDLESS_MODEL}


def mac(spec: MachineSpec) -> str:
    """Return the machine's Ethernet address on the outer network (locally administered, from its IPv4 address)."""
    last = int((spec.outer4 or "0.0.0.0").rsplit(".", 1)[1])  # noqa: S104 - a default for parsing, nothing listens
    return f"02:00:5e:00:71:{last:02x}"

"""The one table that this product owns, `inet appliance`, as text; and the transactions on its peer sets. Pure.

P1 (silent) and P7 (separate) live here. Every chain that decides has policy drop, in both families. Who gets a packet
out of this machine:

- lo: everything.
- Outer interface: WireGuard's own datagrams, which answer authenticated peers only. No echo reply, no port
  unreachable, no reset, no neighbour advertisement (unless `outer_neighbours` names a router). ARP is not IP and stays.
- Tunnel interface: TCP 443 of the node's tunnel address, to addresses in the peer sets; TCP 8444, the mailbox, to those of
  guests, the throw-away peers of invitations. The sets are asked for every packet, not for new connections alone, so taking an
  element out ends a connection at once.
- Management interface: sshd's answers to control, and neighbour discovery if control has IPv6 addresses.

Nothing opens a connection from this machine (P7): there is no rule for it. `flush ruleset` is never used; other tables
are not ours.

Source: nft(8); security.md section 3; weak host model RFC 1122 section 3.3.4.2.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping

from appliance.core.bundle import Tunnel
from appliance.core.enrolment import PORT as MAILBOX_PORT
from appliance.core.errors import HostError
from appliance.core.names import is_canonical_address
from appliance.core.node import NodeSettings

TABLE = "inet appliance"
# New WireGuard flows per second: far above 10,000 devices that all come back within seconds, far below what a flood
# of forged sources needs to fill the connection table (262,144 entries of 30 s).
NEW_FLOWS_PER_S = 4000

# What is reached by whom; the names are fields of `netops.model.Firewall` and of the actions on it as well.
SETS = {"peers4": "ipv4_addr", "peers6": "ipv6_addr", "guests4": "ipv4_addr", "guests6": "ipv6_addr"}

Elements = Mapping[str, tuple[str, ...]]
"""Name of a set to addresses."""

_INTERFACE = re.compile(r"[a-z][a-z0-9-]{0,14}")


def render_rules(settings: NodeSettings, tunnel: Tunnel | None) -> str:
    """Return the table without the elements of its peer sets.

    Args:
        settings: Interfaces and control's addresses.
        tunnel: None before the first bundle: then everything but management is closed.
    """
    chains = [
        *(f"    set {name} {{\n        type {kind}\n    }}" for name, kind in SETS.items()),
        _chain("prerouting", "raw", "accept", _prerouting(settings, tunnel)),
        _chain("input", "filter", "drop", _input(settings, tunnel)),
        _chain(
            "forward", "filter", "drop", []
        ),  # a peer cannot reach another peer, nor anything behind the node
        _chain("output", "filter", "drop", _output(settings, tunnel)),
    ]
    return f"table {TABLE} {{\n" + "\n".join(chains) + "\n}\n"


def render_load(rules: str, elements: Elements) -> bytes:
    """Return the transaction that replaces the table; at no moment is there none."""
    # `delete` fails on a table that is not there, so it is made first.
    text = f"table {TABLE}\ndelete table {TABLE}\n{rules}"
    return text.encode("ascii") + render_add(elements)


def render_add(elements: Elements) -> bytes:
    """Return the transaction that adds elements."""
    return _elements("add", elements)


def render_delete(elements: Elements) -> bytes:
    """Return the transaction that deletes elements, whether they are there or not."""
    # `delete` fails on an element that is not there, and one failure undoes the whole transaction.
    return _elements("add", elements) + _elements("delete", elements)


def parse_sets(listing: bytes) -> dict[str, frozenset[str]]:
    """Return name and elements of each set in the output of `nft --json list sets table`.

    Raises:
        HostError: If it is not in that format.
    """
    try:
        found = [dict(item["set"]) for item in json.loads(listing)["nftables"] if "set" in item]
        return {str(one["name"]): frozenset(map(str, one.get("elem", ()))) for one in found}
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            "`nft --json list sets` printed what libnftables-json(5) does not describe"
        ) from error


def _elements(verb: str, elements: Elements) -> bytes:
    lines = []
    for name in SETS:
        texts = sorted(_host(address) for address in elements.get(name, ()))
        if texts:
            lines.append(f"{verb} element {TABLE} {name} {{ {', '.join(texts)} }}\n")
    return "".join(lines).encode("ascii")


def _chain(hook: str, priority: str, policy: str, rules: list[str]) -> str:
    head = f"        type filter hook {hook} priority {priority}; policy {policy};"
    return "\n".join([f"    chain {hook} {{", head, *(f"        {rule}" for rule in rules), "    }"])


def _prerouting(settings: NodeSettings, tunnel: Tunnel | None) -> list[str]:
    """The weak host model: Linux answers for a tunnel address on any interface unless it is told not to."""
    if tunnel is None:
        return []
    inside = _quote(settings.tunnel_interface)
    rules = ['iifname "lo" accept']
    for family, network in (("ip", _network(tunnel.network4)), ("ip6", _network(tunnel.network6))):
        rules += [f"iifname != {inside} {family} {end} {network} drop" for end in ("daddr", "saddr")]
    return rules


def _input(settings: NodeSettings, tunnel: Tunnel | None) -> list[str]:
    rules = ['iifname "lo" accept']
    if tunnel is not None:
        inside, outer = _quote(settings.tunnel_interface), _quote(settings.outer_interface)
        flows = f"limit rate over {NEW_FLOWS_PER_S}/second burst {2 * NEW_FLOWS_PER_S} packets"
        rules += [
            f"iifname {inside} ip saddr @peers4 ip daddr {_host(tunnel.address4)} tcp dport 443 accept",
            f"iifname {inside} ip6 saddr @peers6 ip6 daddr {_host(tunnel.address6)} tcp dport 443 accept",
            f"iifname {inside} ip saddr @guests4 ip daddr {_host(tunnel.address4)} tcp dport {MAILBOX_PORT} accept",
            f"iifname {inside} ip6 saddr @guests6 ip6 daddr {_host(tunnel.address6)} tcp dport {MAILBOX_PORT} accept",
            # Path MTU of an established flow; WireGuard's inner MTU rarely is the smallest one.
            f"iifname {inside} ip saddr @peers4 icmp type destination-unreachable ct state related accept",
            f"iifname {inside} ip6 saddr @peers6 icmpv6 type packet-too-big ct state related accept",
            f"iifname {inside} drop",
            f"iifname {outer} udp dport {tunnel.listen_port} ct state new {flows} drop",
            f"iifname {outer} udp dport {tunnel.listen_port} accept",
            f"iifname {outer} icmp type destination-unreachable ct state related accept",
            f"iifname {outer} icmpv6 type packet-too-big ct state related accept",
        ]
    return (
        rules + _neighbours(settings, "iifname", "saddr") + _management(settings, "iifname", "saddr", "dport")
    )


def _output(settings: NodeSettings, tunnel: Tunnel | None) -> list[str]:
    rules = ['oifname "lo" accept']
    if tunnel is not None:
        inside, outer = _quote(settings.tunnel_interface), _quote(settings.outer_interface)
        for name, port in (("peers", 443), ("guests", MAILBOX_PORT)):
            back = f"tcp sport {port} ct state established accept"
            rules += [
                f"oifname {inside} ip saddr {_host(tunnel.address4)} ip daddr @{name}4 {back}",
                f"oifname {inside} ip6 saddr {_host(tunnel.address6)} ip6 daddr @{name}6 {back}",
            ]
        rules += [
            # Only WireGuard can hold this port. It may be a new flow: a rekey after the entry has timed out.
            f"oifname {outer} udp sport {tunnel.listen_port} accept",
        ]
    return (
        rules + _neighbours(settings, "oifname", "daddr") + _management(settings, "oifname", "daddr", "sport")
    )


def _neighbours(settings: NodeSettings, direction: str, end: str) -> list[str]:
    """Neighbour discovery on the outer network with the routers that are named, and nobody else (RFC 4861)."""
    return [
        f"{direction} {_quote(settings.outer_interface)} ip6 {end} {_host(address)}"
        " icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
        for address in settings.outer_neighbours
    ]


def _management(settings: NodeSettings, direction: str, end: str, port: str) -> list[str]:
    name = _quote(settings.management_interface)
    state = "ct state { established, new }" if direction == "iifname" else "ct state established"
    rules = [
        f"{direction} {name} {'ip6' if ':' in address else 'ip'} {end} {_host(address)} tcp {port} 22 {state} accept"
        for address in settings.control_addresses
    ]
    if any(":" in address for address in settings.control_addresses):
        rules.append(f"{direction} {name} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept")
    return rules


def _quote(interface: str) -> str:
    """Return an interface name as nft text; the only free text in the table."""
    if not _INTERFACE.fullmatch(interface):
        raise HostError("an interface name has no form that nft text can hold")
    return f'"{interface}"'


def _host(address: str) -> str:
    # A zone (RFC 4007, `fe80::1%text`) may hold any text.
    plain = address.partition("%")[0]
    return plain if is_canonical_address(plain) else str(ipaddress.ip_address(plain))


def _network(network: str) -> str:
    parsed = ipaddress.ip_network(network)
    return f"{_host(str(parsed.network_address))}/{parsed.prefixlen}"

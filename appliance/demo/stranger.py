"""Runs on the stranger: knock on everything of the node that can be knocked on, and count what comes back.

TCP SYN, UDP datagrams, ICMP echo, junk and well-formed WireGuard initiations, over IPv4 and IPv6, to the node's outer
addresses and, over Linux's weak host model, to its tunnel addresses. What comes back is counted below the IP stack by
an AF_PACKET socket (packet(7)): every IPv4 or IPv6 packet whose Ethernet source is the node.

Prints one JSON object: {"sent": n, "received": n}.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator

TCP_PORTS = (*range(1, 201), 443, 1080, 3000, 5000, 5432, 6333, 8000, 8080, 8443, 9000, 9090, 51820)
UDP_PORTS = (*range(1, 61), 123, 161, 443, 500, 1194, 4500, 5353, 51820, 51821)
ECHOES = 10
QUIET_S = 2.0  # how long to listen after the last probe; answers on a veth take microseconds
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
WIREGUARD_INITIATION = struct.pack("<I", 1) + bytes(
    range(144)
)  # type 1, 148 bytes, from nobody the node knows


def main() -> None:
    """Knock, listen, print."""
    interface, node_mac, *targets = sys.argv[1:]
    listener = capture(interface)
    probes = [probe for target in targets for probe in probes_for(target)]
    for number, probe in enumerate(probes):
        send(probe)
        if number % 100 == 99:
            time.sleep(0.01)  # never outrun the queue of a veth
    received = count_answers(listener, bytes.fromhex(node_mac.replace(":", "")))
    print(json.dumps({"sent": len(probes), "received": received}))


Probe = tuple[str, str, int]


def probes_for(target: str) -> Iterator[Probe]:
    """Yield every probe of one address."""
    yield from (("tcp", target, port) for port in TCP_PORTS)
    yield from (("udp", target, port) for port in UDP_PORTS)
    yield from (("echo", target, number) for number in range(ECHOES))


def send(probe: Probe) -> None:
    """Send one probe; a refusal or an error that comes back is counted below, not here."""
    kind, target, number = probe
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        if kind == "tcp":
            connect(family, target, number)
        elif kind == "udp":
            with socket.socket(family, socket.SOCK_DGRAM) as datagram:
                datagram.sendto(WIREGUARD_INITIATION, (target, number))
        else:
            echo(family, target, number)
    except OSError:
        return


_PENDING: list[socket.socket] = []


def connect(family: int, target: str, port: int) -> None:
    """Send a SYN and keep the socket, so that the kernel does not take the SYN back."""
    stream = socket.socket(family, socket.SOCK_STREAM)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    stream.setblocking(False)
    stream.connect_ex((target, port))
    _PENDING.append(stream)


def echo(family: int, target: str, number: int) -> None:
    """Send one ICMP or ICMPv6 echo request (RFC 792, RFC 4443)."""
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    kind = 128 if family == socket.AF_INET6 else 8
    body = struct.pack("!HH", os.getpid() & 0xFFFF, number)
    packet = struct.pack("!BBH", kind, 0, checksum(bytes([kind, 0, 0, 0]) + body)) + body
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(packet, (target, 0))  # the kernel fills in the ICMPv6 checksum (RFC 3542 section 3.1)


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def capture(interface: str) -> socket.socket:
    """Open a socket that sees every frame of an interface."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 2**20)
    raw.bind((interface, 0))
    raw.settimeout(0.1)
    return raw


def count_answers(listener: socket.socket, node_mac: bytes) -> int:
    """Count the IP packets from the node until it has been quiet for QUIET_S; ARP is no IP packet."""
    answers, deadline = 0, time.monotonic() + QUIET_S
    while time.monotonic() < deadline:
        try:
            frame = listener.recv(65535)
        except TimeoutError:
            continue
        if frame[6:12] == node_mac and int.from_bytes(frame[12:14], "big") in (ETH_P_IP, ETH_P_IPV6):
            answers += 1
    return answers


if __name__ == "__main__":
    main()

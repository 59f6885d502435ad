"""A node on a real network: tunnel, firewall, NGINX and agent, with real packets.

Every test that says "nothing" has its positive control in the same test: what must arrive is counted, what must answer
answers.
"""

import contextlib
import json
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from appliance.core.health import Health, Peers
from netops.lines import RemoteError
from tests.lab.netops_stage import (
    CLIENT4,
    MGMT4,
    NODE4,
    NODE6,
    NODE_MGMT4,
    STRANGER4,
    inside,
    receive_all,
    stage,
)
from tests.unit.netops import authority, cast

pytestmark = pytest.mark.lab

ACME, BOLT = ("acme", 2, 3), ("bolt", 10, 1)
HOST = cast.TUNNEL.address4


@pytest.fixture(scope="module")
def fresh():
    """A stage whose agent has applied nothing."""
    with stage() as built:
        yield built


@pytest.fixture(scope="module")
def serving(fresh):
    """The stage after its first bundle, with one device of acme connected."""
    fresh.store_model()
    fresh.tls = fresh.certificate()
    fresh.generation = 1
    fresh.clients = (ACME, BOLT)
    fresh.apply(current(fresh))
    fresh.join_client("acme-0", 2)
    return fresh


def current(stage):
    clients = (cast.client(*spec) for spec in stage.clients)
    return cast.bundle(stage.generation, *clients, tls=stage.tls)


@pytest.fixture
def node(serving):
    """The stage with exactly acme's and bolt's devices in force, as a new generation."""
    serving.clients = (ACME, BOLT)
    serving.generation += 1
    serving.apply(current(serving))
    return serving


def get(path="/v1/models", host=HOST, extra=""):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n".encode()


def post(body, path="/v1/chat/completions", extra=""):
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def status(answer):
    return int(answer.split(b" ", 2)[1])


def body(answer):
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


class Stream:
    """A streaming request whose events are read and timed in the background."""

    def __init__(self, stage, source=None):
        self.connection = stage.connect(source=source)
        self.connection.sendall(get("/v1/stream"))
        self.times = []
        self._seen = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        while len(self.times) < 5:
            time.sleep(0.01)

    def _read(self):
        with contextlib.suppress(OSError, ValueError):
            while data := self.connection.recv(65536):
                self._seen += data
                self.times.append(time.monotonic())

    def numbers(self):
        return [int(number) for number in re.findall(rb"data: (\d+)\n", self._seen)]

    def gap_s(self):
        return max(after - before for before, after in zip(self.times, self.times[1:], strict=False))

    def close(self):
        self.connection.close()
        self._thread.join(5)


def test_before_any_bundle_the_management_port_alone_is_open(fresh):
    if fresh.ask("state")["accepted"]:
        pytest.skip("another test has applied a bundle already")
    listener = inside(fresh.name("node"), lambda: socket.create_server(("0.0.0.0", 22)))
    with listener:
        with inside(fresh.name("mgmt"), lambda: socket.create_connection((NODE_MGMT4, 22), 3)):
            pass
        with pytest.raises(TimeoutError):
            inside(fresh.name("stranger"), lambda: socket.create_connection((NODE4, 22), 1))


def test_a_peer_gets_200_over_tls_through_the_tunnel_on_both_families(node):
    for address, host, source in (
        (HOST, HOST, "10.86.0.2"),
        ("fd86:5e:1::1", "[fd86:5e:1::1]", "fd86:5e:1::2"),
    ):
        answer = node.exchange(get("/v1/models?x=%20y", host), address)
        assert status(answer) == 200
        seen = body(answer)
        assert seen["client"] == "acme"
        assert seen["path"] == "/v1/models?x=%20y"
        assert seen["headers"]["X-Peer-Address"] == source
    assert status(node.exchange(get(host="node-a.appliance.internal"))) == 200
    assert status(node.exchange(get(host=f"{HOST}:443"))) == 200


def test_what_a_client_says_about_itself_does_not_reach_the_cell(node):
    lies = "".join(
        f"{name}: 10.86.0.10\r\n"
        for name in ("X-Peer-Address", "X_Peer_Address", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
                     "X-Real-IP", "Forwarded", "x-peer-address")
    )  # fmt: skip
    headers = body(node.exchange(get(extra=lies + "Authorization: Bearer t\r\n")))["headers"]
    assert headers == {
        "Host": "node-a.appliance.internal",
        "X-Peer-Address": "10.86.0.2",
        "Authorization": "Bearer t",
    }


def test_a_cell_gives_nginx_no_orders(node):
    """The stand-in sends X-Accel-Redirect: /etc/passwd with each answer."""
    answer = node.exchange(get())
    assert status(answer) == 200
    assert b"X-Accel" not in answer
    assert b"root:" not in answer


def test_a_largest_body_arrives_and_needs_no_file(node):
    assert body(node.exchange(post(b"x" * 2**20)))["length"] == 2**20
    chunks = b"".join(b"%x\r\n%s\r\n" % (50_000, b"y" * 50_000) for _ in range(10)) + b"0\r\n\r\n"
    head = f"POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert body(node.exchange(head.encode() + chunks))["length"] == 500_000
    nothing = node.paths.nginx / "no-temporary-files"
    assert nothing.is_file()
    assert nothing.stat().st_size == 0


MALFORMED = {
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "HTTP/1.0 without host": b"GET /v1/models HTTP/1.0\r\n\r\n",
    "another host": get(host="example.org"),
    "another node's name": get(host="node-b.appliance.internal"),
    "bad host": get(host="a b/"),
    "two hosts": get(extra=f"Host: {HOST}\r\n"),
    "host in the line alone": f"GET https://{HOST}/v1/models HTTP/1.1\r\n\r\n".encode(),
    "garbage": b"\x00\x01\x02\x03 not http\r\n\r\n",
    "bad version": b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "PUT": get().replace(b"GET", b"PUT"),
    "HEAD": get().replace(b"GET", b"HEAD"),
    "OPTIONS": get().replace(b"GET", b"OPTIONS"),
    "TRACE": get().replace(b"GET", b"TRACE"),
    "unknown path": get("/"),
    "path above": get("/v1/../etc/passwd"),
    "bad escape": get("/v1/%zz"),
    "NUL in the path": get("/v1/%00"),
    "the drop location": get("/drop"),
    "the busy location": get("/unavailable"),
    "long line": get("/v1/" + "a" * 20_000),
    "long header": get(extra="X-A: " + "a" * 20_000 + "\r\n"),
    "many headers": get(extra="".join(f"X-{n}: {'a' * 500}\r\n" for n in range(200))),
    "two framings": post(b"x", extra="Transfer-Encoding: chunked\r\n"),
    "unknown framing": get(extra="Transfer-Encoding: gzip\r\n"),
    "bad length": get(extra="Content-Length: -1\r\n"),
    "body too large": post(b"x" * (2**20 + 1)),
    "chunked body too large": (
        f"POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"%x\r\n%s\r\n" % (2**20 + 1, b"x" * (2**20 + 1))
        + b"0\r\n\r\n"
    ),
    "bad chunk": f"POST /v1/x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
    "another host with too large a body": post(b"x" * (2**20 + 1)).replace(HOST.encode(), b"example.org"),
    "slow header": b"GET /v1/models HTTP/1.1\r\nHost: 1",
    "slow body": post(b"x")[:-1],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_no_byte_after_the_handshake(node, name):
    assert node.exchange(MALFORMED[name]) == b""
    assert status(node.exchange(get())) == 200


def test_plain_http_on_the_tls_port_gets_no_byte(node):
    plain = inside(node.name("client"), lambda: socket.create_connection((HOST, 443), 5))
    with plain:
        plain.sendall(get())
        assert receive_all(plain) == b""


def test_old_tls_and_weak_ciphers_are_refused(node):
    def handshake(configure):
        context = ssl.create_default_context(cadata=authority.ca())
        configure(context)
        plain = inside(node.name("client"), lambda: socket.create_connection((HOST, 443), 5))
        with plain, context.wrap_socket(plain, server_hostname=HOST) as connection:
            return connection.version(), connection.cipher()[0]

    def tls12(context):
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def cbc(context):
        tls12(context)
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")

    assert handshake(lambda context: None)[0] == "TLSv1.3"
    assert "GCM" in handshake(tls12)[1] or "CHACHA20" in handshake(tls12)[1]
    with pytest.raises(OSError):
        handshake(cbc)


def test_a_client_whose_cell_does_not_answer_is_told_to_come_again(node):
    node.stand_ins.end_cell("acme")
    try:
        answer = node.exchange(post(b"{}"))
    finally:
        node.apply(current(node))
    assert status(answer) == 503
    assert b"\r\nRetry-After: 2\r\n" in answer
    assert body(answer)["error"]["code"] == "unavailable"
    assert status(node.exchange(get())) == 200


def test_an_error_of_the_cell_passes_unchanged(node):
    answer = node.exchange(get("/v1/refused"))
    assert status(answer) == 503
    assert body(answer) == {"error": {"code": "the cell's own"}}
    assert b"Retry-After" not in answer


def test_one_device_cannot_hold_more_than_32_requests(node):
    held = [node.connect() for _ in range(32)]
    try:
        for connection in held:
            connection.sendall(get("/v1/hang"))
        time.sleep(0.5)
        answer = node.exchange(get())
    finally:
        for connection in held:
            connection.close()
    assert status(answer) == 429
    assert b"\r\nRetry-After: 2\r\n" in answer
    assert body(answer)["error"]["code"] == "too_many_requests"


def test_a_stream_leaves_as_it_comes(node):
    stream = Stream(node)
    time.sleep(1)
    stream.close()
    assert len(stream.times) > 30
    assert stream.gap_s() < 0.3


def test_nginx_overwrites_freed_memory_and_writes_no_log(node):
    master = int((node.paths.nginx / "nginx.pid").read_text())
    # glibc before 2.39 cuts the list into strings where it lies.
    environment = Path(f"/proc/{master}/environ").read_bytes().replace(b"\0", b":")
    assert b"GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0" in environment
    targets = {os.readlink(f"/proc/{master}/fd/{fd}") for fd in os.listdir(f"/proc/{master}/fd")}
    assert not {target for target in targets if target.startswith("/") and target != "/dev/null"}


class Capture:
    """Counts IP packets that arrive at the stranger from the node's Ethernet address."""

    def __init__(self, stage):
        self.source = bytes.fromhex(stage.mac(0).replace(":", ""))
        self.socket = inside(stage.name("stranger"), self._open)
        self.packets = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @staticmethod
    def _open():
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        capture.bind(("wan0", 0))
        return capture

    def drain(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                frame = self.socket.recv(2048)
                if frame[6:12] == self.source and frame[12:14] in {b"\x08\x00", b"\x86\xdd"}:
                    self.packets.append(frame)
        return self.packets


def probe_node(stage):
    """Send what a stranger can send; return how many packets left."""
    mac = stage.mac(0)
    # Static neighbours, or IPv6 probes never leave: the node answers no neighbour solicitation.
    for address in (NODE4, HOST):
        stage.execute(
            "stranger", "ip", "neigh", "replace", address, "lladdr", mac, "dev", "wan0", "nud", "permanent"
        )
    for address in (NODE6, "fd86:5e:1::1"):
        stage.execute(
            "stranger", "ip", "neigh", "replace", address, "lladdr", mac, "dev", "wan0", "nud", "permanent"
        )
    stage.execute("stranger", "ip", "route", "replace", f"{HOST}/32", "dev", "wan0")
    stage.execute("stranger", "ip", "-6", "route", "replace", "fd86:5e:1::1/128", "dev", "wan0")
    return inside(stage.name("stranger"), _probe)


def _probe():
    sent = 0
    ports = [*range(1, 200), 443, 8443, 51819, 51820, 51821]
    for target in (NODE4, HOST, NODE6, "fd86:5e:1::1"):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        for port in ports:
            with socket.socket(family, socket.SOCK_STREAM) as tcp:
                tcp.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    tcp.connect((target, port))
                sent += 1
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                # To WireGuard's port also something that looks like a handshake initiation.
                udp.sendto(struct.pack("<I", 1) + os.urandom(144), (target, port))
                sent += 1
        protocol = socket.IPPROTO_ICMPV6 if ":" in target else socket.IPPROTO_ICMP
        with socket.socket(family, socket.SOCK_RAW, protocol) as icmp:
            for _ in range(5):
                icmp.sendto(
                    struct.pack("!BBHHH", 128 if ":" in target else 8, 0, 0xF7FF - 0x0800, 1, 1), (target, 0)
                )
                sent += 1
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for source in ("10.86.0.2", STRANGER4):  # a spoofed peer, and an unknown protocol
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6 if source != STRANGER4 else 253, 0,
                socket.inet_aton(source), socket.inet_aton(HOST),
            )  # fmt: skip
            raw.sendto(header + struct.pack("!HHIIBBHHH", 4000, 443, 1, 0, 0x50, 2, 1000, 0, 0), (HOST, 0))
            sent += 1
    return sent


def test_a_stranger_gets_no_packet_from_any_port(node):
    before = node.arrived()
    with Capture(node) as capture:
        sent = probe_node(node)
        packets = capture.drain(2.0)
    assert sent > 1600
    assert node.arrived() - before >= sent
    assert [frame.hex() for frame in packets] == []
    assert status(node.exchange(get())) == 200


def test_the_silence_test_would_hear_an_answer(node):
    """Positive control: with the firewall out of the way, the same probes are answered."""
    node.stop_agent()
    node.execute("node", "nft", "delete", "table", "inet", "appliance")
    try:
        with Capture(node) as capture:
            probe_node(node)
            heard = len(capture.drain(1.0))
    finally:
        node.start_agent()
    node.apply(current(node))
    assert heard > 50
    assert status(node.exchange(get())) == 200


def test_the_node_opens_no_connection_anywhere(node):
    """P7, with its control: control reaches the node over the same link at the same time."""
    with inside(node.name("mgmt"), lambda: socket.create_server((MGMT4, 8443))) as listener:
        listener.settimeout(1)
        with pytest.raises((TimeoutError, PermissionError)):
            inside(node.name("node"), lambda: socket.create_connection((MGMT4, 8443), 1))
        with pytest.raises(TimeoutError):
            listener.accept()
        with inside(node.name("node"), lambda: socket.create_server((NODE_MGMT4, 22))):
            with inside(node.name("mgmt"), lambda: socket.create_connection((NODE_MGMT4, 22), 3)):
                pass
        for target in (CLIENT4, "10.86.0.2"):
            with pytest.raises((TimeoutError, PermissionError)):
                inside(node.name("node"), lambda t=target: socket.create_connection((t, 80), 0.5))


def test_a_peer_reaches_port_443_of_the_tunnel_address_and_nothing_else(node):
    targets = [(HOST, 22), (HOST, 80), (NODE4, 443), ("10.86.0.3", 443), (NODE_MGMT4, 22)]
    with inside(node.name("node"), lambda: socket.create_server(("0.0.0.0", 80))):
        for target in targets:
            with pytest.raises(OSError):
                inside(
                    node.name("client"), lambda t=target: socket.create_connection(t, 0.5, ("10.86.0.2", 0))
                )
    assert status(node.exchange(get())) == 200


def test_a_thousand_more_devices_do_not_interrupt_a_stream_or_reload_nginx(node):
    stream, workers = Stream(node), node.workers()
    node.generation += 1
    node.clients = (ACME, BOLT, ("cora", 1000, 1000))
    applied = node.apply(current(node))
    time.sleep(0.3)
    numbers = stream.numbers()
    stream.close()
    assert len([line for line in applied["actions"] if line.startswith("add peer")]) == 1000
    assert not [line for line in applied["actions"] if "nginx" in line or "load firewall" in line]
    assert node.workers() == workers
    assert numbers == list(range(len(numbers)))
    assert stream.gap_s() < 1.0


def test_a_revocation_cuts_a_running_stream_within_a_second(node):
    node.join_client("acme-1", 3)
    other = Stream(node, source="10.86.0.2")
    stream = Stream(node, source="10.86.0.3")
    start = time.monotonic()
    revoked = node.revoke(cast.revocation(node.generation, keys=(cast.public_key("acme-1"),)))
    answered = time.monotonic()
    time.sleep(1.5)
    last, other_last = stream.times[-1], other.times[-1]
    stream.close()
    other.close()
    assert revoked["removed"] == [cast.public_key("acme-1")]
    assert answered - start < 1.0
    assert last - start < 1.0
    assert other_last - start > 1.0
    entries = node.execute("node", "conntrack", "-L", "-s", "10.86.0.3")
    assert "10.86.0.3" not in entries
    # The old bundle again does not bring it back; the next generation may.
    assert node.apply(current(node))["actions"] == []
    assert len(node.ask("observe")["peers"]) == 3
    node.generation += 1
    node.apply(current(node))
    assert len(node.ask("observe")["peers"]) == 4


def test_a_firewall_element_alone_ends_an_established_connection(node):
    """Defence in depth: the peer sets are asked for each packet, not for new connections alone."""
    stream = Stream(node)
    node.execute("node", "nft", "delete", "element", "inet", "appliance", "peers4", "{ 10.86.0.2 }")
    start = time.monotonic()
    time.sleep(1.0)
    assert stream.times[-1] - start < 0.3
    node.apply(current(node))
    stream.close()


def test_a_second_apply_finds_nothing_to_do(node):
    assert node.plan(current(node)) == []
    assert node.apply(current(node))["actions"] == []


DRIFT = {
    "a peer removed": ["wg", "set", "{wg}", "peer", cast.public_key("acme-0"), "remove"],
    "a foreign peer": ["wg", "set", "{wg}", "peer", cast.public_key("x"), "allowed-ips", "10.86.9.9/32"],
    "a peer's network widened": [
        "wg",
        "set",
        "{wg}",
        "peer",
        cast.public_key("acme-0"),
        "allowed-ips",
        "10.0.0.0/8",
    ],
    "a keepalive": ["wg", "set", "{wg}", "peer", cast.public_key("acme-1"), "persistent-keepalive", "5"],
    "a preshared key lost": [
        "wg",
        "set",
        "{wg}",
        "peer",
        cast.public_key("acme-1"),
        "preshared-key",
        "/dev/null",
    ],
    "another port": ["wg", "set", "{wg}", "listen-port", "5555"],
    "an address added": ["ip", "address", "add", "10.99.0.1/24", "dev", "{wg}"],
    "an address removed": ["ip", "address", "del", "fd86:5e:1::1/64", "dev", "{wg}"],
    "another MTU": ["ip", "link", "set", "{wg}", "mtu", "1300"],
    "the interface down": ["ip", "link", "set", "{wg}", "down"],
    "the interface deleted": ["ip", "link", "delete", "{wg}"],
    "a rule added": ["nft", "insert", "rule", "inet", "appliance", "input", "accept"],
    "a chain flushed": ["nft", "flush", "chain", "inet", "appliance", "output"],
    "an element added": ["nft", "add", "element", "inet", "appliance", "peers4", "{ 10.86.7.7 }"],
    "the table deleted": ["nft", "delete", "table", "inet", "appliance"],
    "every table flushed": ["nft", "flush", "ruleset"],
}


@pytest.mark.parametrize("name", DRIFT)
def test_what_somebody_changed_by_hand_is_put_right_by_the_next_pass(node, name):
    argv = [word.replace("{wg}", node.interface) for word in DRIFT[name]]
    probes = node.execute("node", "nft", "list", "table", "inet", "probes")
    node.execute("node", *argv)
    planned = node.plan(current(node))
    assert planned
    assert node.apply(current(node))["actions"] == planned
    assert node.plan(current(node)) == []
    if name == "every table flushed":
        node.execute("node", "nft", "-f", "-", stdin=probes.encode())
    assert _gets_200(node)


def _gets_200(node):
    # A client notices that a node has lost its session after some seconds only (WireGuard's timers), so a new one.
    device = f"{node.tag}a2"
    peer = node.execute("client", "wg", "show", device, "peers").strip()
    config = node.execute("client", "wg", "showconf", device)
    node.execute("client", "wg", "set", device, "peer", peer, "remove")
    node.execute(
        "client", "wg", "addconf", device, "/dev/stdin", stdin=config[config.index("[Peer]") :].encode()
    )
    return status(node.exchange(get())) == 200


def test_a_dead_nginx_is_started_again(node):
    os.kill(int((node.paths.nginx / "nginx.pid").read_text()), signal.SIGKILL)
    # Its workers live on and hold the port.
    time.sleep(0.2)
    assert node.apply(current(node))["actions"] == ["start nginx"]
    assert status(node.exchange(get())) == 200


def test_a_new_certificate_is_taken_up_by_a_reload_that_cuts_no_stream(node):
    stream = Stream(node)
    node.tls = node.certificate()
    node.generation += 1
    actions = node.apply(current(node))["actions"]
    assert "reload nginx" in actions
    with node.connect() as connection:
        served = ssl.DER_cert_to_PEM_cert(connection.getpeercert(True))
    assert served.strip() == node.tls.certificate.strip()
    time.sleep(0.5)
    numbers = stream.numbers()
    stream.close()
    assert numbers == list(range(len(numbers)))
    assert stream.gap_s() < 1.0
    assert len(list(node.paths.nginx.glob("tls-*.pem"))) == 1


def test_an_agent_that_ends_or_is_killed_interrupts_nothing(node):
    stream = Stream(node)
    for how in (signal.SIGTERM, signal.SIGKILL):
        node.stop_agent(how)
        node.start_agent()
    time.sleep(0.5)
    numbers = stream.numbers()
    stream.close()
    assert numbers == list(range(len(numbers)))
    assert stream.gap_s() < 1.0
    assert node.apply(current(node))["actions"] == []


def test_after_a_reboot_the_node_serves_without_control(node):
    """What a reboot takes away is taken away: interface, tables, NGINX, /run. Then the agent is started, no more."""
    node.stop_agent()
    os.kill(int((node.paths.nginx / "nginx.pid").read_text()), signal.SIGTERM)
    node.execute("node", "ip", "link", "delete", node.interface)
    node.execute("node", "nft", "delete", "table", "inet", "appliance")
    for file in ("firewall.json", "nginx/loaded.json"):
        (node.paths.run / file).unlink()
    node.start_agent()
    deadline = time.monotonic() + 10
    while len(node.ask("observe")["peers"]) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert node.apply(current(node))["actions"] == []
    assert _gets_200(node)


def test_a_failed_apply_leaves_the_old_state_serving_and_the_removal_done(node):
    before = node.ask("state")["accepted"]
    node.generation += 1
    node.clients = (ACME, ("dyne", 3000, 1))
    node.stand_ins.refuse = "dyne"
    try:
        with pytest.raises(RemoteError) as failed:
            node.apply(current(node))
    finally:
        node.stand_ins.refuse = None
    assert failed.value.code == "unavailable"
    assert node.ask("state")["accepted"] == before
    observed = node.ask("observe")
    assert observed["clients"] == ["acme"]
    assert len(observed["peers"]) == 3
    assert status(node.exchange(get())) == 200


def test_a_certificate_that_nginx_refuses_changes_nothing(node):
    before = node.ask("observe")
    node_key_in_nonsense = node.tls.certificate.replace("\nMII", "\nAAA", 1)
    value = current(node).model_copy(
        update={"generation": node.generation + 1, "tls": cast.with_tls(node_key_in_nonsense)}
    )
    with pytest.raises(RemoteError) as refused:
        node.apply(value)
    assert refused.value.field == "tls.certificate"
    after = node.ask("observe")
    assert [peer["public_key"] for peer in after["peers"]] == [peer["public_key"] for peer in before["peers"]]
    assert status(node.exchange(get())) == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"node": "node-b"}, "node"),
        ({"generation": 1}, "generation"),
        ({"seats": 9}, "generation"),
        ({"previous": None, "generation": 10**6}, "previous"),
    ],
)
def test_a_bad_bundle_is_refused_by_the_real_agent_and_the_node_goes_on_serving(node, change, field):
    with pytest.raises(RemoteError) as refused:
        node.apply(current(node).model_copy(update=change))
    assert (refused.value.code, refused.value.field) == ("bundle_refused", field)
    assert node.plan(current(node)) == []
    assert status(node.exchange(get())) == 200


def test_another_user_of_the_machine_is_not_answered(node):
    ask = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"id":1,"op":"state"}\\n\'); print(len(s.recv(1000)))'
    )
    node.paths.agent_socket.chmod(0o666)
    argv = [sys.executable, "-c", ask, str(node.paths.agent_socket)]
    try:
        as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups", *argv]
        stranger = subprocess.run(as_nobody, check=False, capture_output=True)
        root = subprocess.run(argv, check=True, capture_output=True)
    finally:
        node.paths.agent_socket.chmod(0o600)
    assert int(root.stdout) > 0
    assert stranger.stdout.strip() in {b"0", b""}


def test_the_command_prints_for_people_and_for_programs(node, tmp_path):
    signed = cast.signed(current(node))
    bundle, signature = tmp_path / "bundle.json", tmp_path / "bundle.sig"
    bundle.write_text(signed.text)
    signature.write_text(signed.signature + "\n")
    command = [sys.executable, "-m", "appliance", "node", "--socket", str(node.paths.agent_socket)]

    def run(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    assert run("plan", str(bundle), "--signature", str(signature)).stdout.startswith("nothing to do")
    applied = json.loads(run("apply", "--json", str(bundle), "--signature", str(signature)).stdout)
    assert applied["accepted"]["generation"] == node.generation
    assert json.loads(run("health", "--json").stdout)["seats"] == {"total": 2, "taken": 0}
    assert "interface.kind" in run("observe").stdout
    assert [e["position"] for e in json.loads(run("receipts", "--json").stdout)["entries"]] == [1, 2, 3]
    signature.write_text("nonsense")
    refused = run("apply", str(bundle), "--signature", str(signature))
    assert refused.returncode == 1
    assert "signature" in refused.stderr


def test_the_relay_carries_a_whole_conversation(node):
    command = [sys.executable, "-m", "appliance", "node", "--socket", str(node.paths.agent_socket), "relay"]
    questions = b'{"id":1,"op":"state"}\n{"id":2,"op":"health"}\n'
    done = subprocess.run(command, check=True, input=questions, capture_output=True, timeout=20)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]


def test_health_counts_taken_seats_without_touching_them(node):
    import fcntl

    with (node.paths.seats / "0").open() as seat:
        fcntl.flock(seat, fcntl.LOCK_EX)
        assert node.ask("health")["seats"] == {"total": 2, "taken": 1}
    assert node.ask("health")["seats"] == {"total": 2, "taken": 0}


def test_health_counts_the_peers_that_the_kernel_knows(node):
    assert status(node.exchange(get())) == 200
    tunnel, peers = Health.parse(node.ask("health")).tunnel, Peers.parse(node.ask("peers"))
    assert tunnel.up
    assert tunnel.connected == sum(len(fresh.public_keys) for fresh in peers.connected) >= 1
    assert tunnel.connected + tunnel.stale + tunnel.never_seen == len(node.ask("observe")["peers"])


def test_no_log_line_of_the_agent_names_anything(node):
    lines = node.agent_log.read_text().splitlines()
    assert all(re.fullmatch(r"agent: [a-z?]+ \w+", line) for line in lines), lines

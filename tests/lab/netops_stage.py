"""A stage for the node's network tests: five network namespaces, a real agent, and stand-ins behind real sockets.

    sw (bridge) ── node wan0 198.18.7.10, fd71::10      mgmt mgmt0 ── node mgmt0 (198.51.100.0/31)
                ── client wan0 198.18.7.21
                ── stranger wan0 198.18.7.66, fd71::66

wireguard-go, nft, nginx and the agent are the real ones. In place of the cells and the notary there is a small server
that speaks their protocols on the same sockets.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from appliance.core.names import encode_base64
from appliance.core.node import NodePaths
from netops.lines import call
from tests.unit.netops import authority, cast

T = TypeVar("T")
PORT = 51820
NODE4, NODE6 = "198.18.7.10", "fd71::10"
CLIENT4, CLIENT6 = "198.18.7.21", "fd71::21"
STRANGER4, STRANGER6 = "198.18.7.66", "fd71::66"
MGMT4, NODE_MGMT4 = "198.51.100.0", "198.51.100.1"
TICK_S = 0.02


def run(*argv: str, stdin: bytes | None = None) -> str:
    """Run a command that must succeed and return its output."""
    done = subprocess.run(argv, input=stdin, check=False, capture_output=True)
    assert done.returncode == 0, (argv, done.stderr.decode())
    return done.stdout.decode()


def inside(namespace: str, function: Callable[[], T]) -> T:
    """Call a function in a thread that is in a network namespace; sockets made there stay there."""
    box: list[Any] = []

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}") as handle:
            if libc.setns(handle.fileno(), 0x40000000):  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), "setns")
        try:
            box.append((True, function()))
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            box.append((False, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    good, value = box[0]
    if not good:
        raise value
    return value


class _UnixHttp(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


class _CellHandler(http.server.BaseHTTPRequestHandler):
    """Stands in for a cell: echoes what arrived, or streams until somebody stops."""

    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """No log."""

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Accel-Redirect", "/etc/passwd")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.startswith("/v1/stream"):
            self._stream()
        elif self.path == "/v1/refused":
            self._answer(503, {"error": {"code": "the cell's own"}})
        elif self.path == "/v1/hang":
            time.sleep(3)
            self._answer(200, {})
        else:
            self._answer(
                200, {"path": self.path, "headers": dict(self.headers), "client": self.server.client}
            )

    def do_DELETE(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(200, {"length": len(self.rfile.read(length))})

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(10_000):
            text = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.flush()
            time.sleep(TICK_S)


class StandIns:
    """The notary and the launcher, as far as the agent can tell."""

    def __init__(self, paths: NodePaths) -> None:
        self.idle = (
            False  # listen on the cells' sockets and answer nothing, for measurements with many clients
        )
        self._paths = paths
        self._cells: dict[str, _UnixHttp] = {}
        self.notary: dict[str, str] = {}
        self.calls: list[str] = []
        self.refuse: str | None = None
        self._servers = [
            self._serve(paths.notary_control, self._answer_notary),
            self._serve(paths.launcher_socket, self._answer_launcher),
        ]

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for name in list(self._cells):
            self.end_cell(name)

    def _serve(self, path: Path, answer: Callable[[dict[str, Any]], Any]) -> Any:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    request = json.loads(line)
                    try:
                        reply = {"id": request["id"], "ok": True, "result": answer(request)}
                    except PermissionError:
                        error = {"code": "unavailable", "message": "told to fail by the test"}
                        reply = {"id": request["id"], "ok": False, "error": error}
                    self.wfile.write(json.dumps(reply).encode() + b"\n")

        path.unlink(missing_ok=True)
        server = _UnixHttp(str(path), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def _answer_notary(self, request: dict[str, Any]) -> Any:
        if request["op"] == "status":
            return {
                "public_key": encode_base64(cast.digest("notary")),
                "boot": "0" * 32,
                "records": 3,
                "open": 0,
            }
        if request["op"] == "export":
            entries = [{"position": n, "signed": "{}"} for n in range(request["after"] + 1, 4)][
                : request["limit"]
            ]
            return {"entries": entries, "next": entries[-1]["position"] if entries else request["after"]}
        self.calls.append("notary")
        if self.refuse == "notary":
            raise PermissionError
        want = {item["name"]: item["pseudonym"] for item in request["clients"]}
        for name in self.notary.keys() - want.keys():
            shutil.rmtree(self._paths.notary_clients / name)
        for name in want.keys() - self.notary.keys():
            folder = self._paths.notary_clients / name
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
                bound.bind(str(folder / "notary.sock"))
        changed = {
            "added": sorted(want.keys() - self.notary.keys()),
            "removed": sorted(self.notary.keys() - want.keys()),
        }
        self.notary = want
        return changed

    def _answer_launcher(self, request: dict[str, Any]) -> Any:
        if request["op"] == "cells":
            return {
                "cells": [
                    {"client": name, "pid": os.getpid(), "rss_bytes": 1} for name in sorted(self._cells)
                ]
            }
        self.calls.append("launcher")
        want = set(request["clients"])
        if self.refuse == "launcher" or self.refuse in want:
            raise PermissionError
        gone, new = self._cells.keys() - want, want - self._cells.keys()
        for name in gone:
            self.end_cell(name)
        for name in new:
            path = self._paths.clients / name / "http.sock"
            path.unlink(missing_ok=True)
            server = _UnixHttp(str(path), _CellHandler)
            server.client = name  # type: ignore[attr-defined]
            path.chmod(0o660)
            os.chown(path, -1, grp.getgrnam("www-data").gr_gid)
            if not self.idle:
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self._cells[name] = server
        return {"added": sorted(new), "removed": sorted(gone)}

    def end_cell(self, name: str) -> None:
        server = self._cells.pop(name)
        if not self.idle:
            server.shutdown()
        server.server_close()
        (self._paths.clients / name / "http.sock").unlink(missing_ok=True)


class Stage:
    """The namespaces and what runs in them."""

    def __init__(self, folder: Path) -> None:
        self.tag = f"nx{secrets.token_hex(2)}"
        self.folder = folder
        self.paths = NodePaths(folder)
        self.interface = f"{self.tag}n"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.agent: subprocess.Popen[bytes] | None = None
        self.stand_ins: StandIns | None = None

    def name(self, role: str) -> str:
        return f"{self.tag}{role}"

    def up(self) -> None:
        roles = ("sw", "node", "client", "stranger", "mgmt")
        for role in roles:
            run("ip", "netns", "add", self.name(role))
            self.execute(role, "ip", "link", "set", "lo", "up")
        self.execute("sw", "ip", "link", "add", "br0", "type", "bridge")
        self.execute("sw", "ip", "link", "set", "br0", "up")
        for number, (role, four, six) in enumerate(
            (("node", NODE4, NODE6), ("client", CLIENT4, CLIENT6), ("stranger", STRANGER4, STRANGER6))
        ):
            port = f"p{number}"
            self.execute(
                "sw",
                "ip",
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "name",
                "wan0",
                "address",
                self.mac(number),
                "netns",
                self.name(role),
            )
            self.execute("sw", "ip", "link", "set", port, "master", "br0", "up")
            self.address(role, "wan0", f"{four}/24", f"{six}/64")
        self.execute(
            "mgmt",
            "ip",
            "link",
            "add",
            "mgmt0",
            "type",
            "veth",
            "peer",
            "name",
            "mgmt0",
            "netns",
            self.name("node"),
        )
        self.address("mgmt", "mgmt0", f"{MGMT4}/31")
        self.address("node", "mgmt0", f"{NODE_MGMT4}/31")
        # Somebody else's table: it must survive, and it counts what reaches the node.
        counting = (
            "table inet probes { chain arrive {\ntype filter hook prerouting priority -400; policy accept;\n"
            f"ether saddr {self.mac(2)} meta protocol {{ ip, ip6 }} counter\n}}\n}}\n"
        )
        self.execute("node", "nft", "-f", "-", stdin=counting.encode())
        settings = cast.settings(tunnel_interface=self.interface)
        self.paths.etc.mkdir(parents=True)
        (self.paths.etc / "node.json").write_text(json.dumps(settings.model_dump(mode="json")))
        self.paths.notary_clients.mkdir(parents=True)
        self.stand_ins = StandIns(self.paths)

    def address(self, role: str, link: str, *addresses: str) -> None:
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            self.execute(role, "ip", "address", "add", address, "dev", link, *nodad)
        self.execute(role, "ip", "link", "set", link, "up")

    @staticmethod
    def mac(number: int) -> str:
        return f"02:00:5e:71:00:{number + 10:02x}"

    def execute(self, role: str, *argv: str, stdin: bytes | None = None) -> str:
        return run("ip", "netns", "exec", self.name(role), *argv, stdin=stdin)

    def popen(self, role: str, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["ip", "netns", "exec", self.name(role), *argv], **options)
        self._processes.append(process)
        return process

    def start_agent(self) -> None:
        self.paths.agent_socket.unlink(missing_ok=True)
        self.agent_log = self.folder / "agent.log"
        with self.agent_log.open("ab") as log:
            self.agent = self.popen(
                "node", sys.executable, "-m", "appliance", "agent", "--root", str(self.folder), stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(Exception):
                self.ask("state")
                return
            if self.agent.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.agent_log.read_text())
            time.sleep(0.02)

    def stop_agent(self, how: int = signal.SIGTERM) -> None:
        assert self.agent is not None
        self.agent.send_signal(how)
        self.agent.wait(10)

    def ask(self, op: str, **fields: Any) -> Any:
        return call(self.paths.agent_socket, op, timeout_s=60, **fields)

    def apply(self, bundle: Any) -> Any:
        signed = cast.signed(bundle)
        return self.ask("apply", bundle=signed.text, signature=signed.signature)

    def plan(self, bundle: Any) -> list[str]:
        signed = cast.signed(bundle)
        return self.ask("plan", bundle=signed.text, signature=signed.signature)["actions"]

    def revoke(self, signed: Any) -> Any:
        return self.ask("revoke", revocation=signed.text, signature=signed.signature)

    def store_model(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.paths.agent_socket))
            file = cast.PIN.files[0]
            line = json.dumps({"id": 1, "op": "model", "sha256": file.sha256, "size": file.size}).encode()
            connection.sendall(line + b"\n" + cast.MODEL_BYTES)
            reply = json.loads(connection.makefile("rb").readline())
            assert reply["ok"], reply

    def certificate(self) -> Any:
        return cast.with_tls(authority.issue(self.ask("identity")["tls_request"]))

    def join_client(self, name: str, host: int) -> str:
        """Start a WireGuard client for a device in the client namespace; return its interface."""
        link = f"{self.tag}{name[:1]}{host:x}"
        device = self.popen(
            "client",
            "wireguard-go",
            "-f",
            link,
            env={**os.environ, "LOG_LEVEL": "silent"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 5
        while subprocess.run(["wg", "show", link], check=False, capture_output=True).returncode:
            assert device.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        key = encode_base64(cast.private_key(name).private_bytes_raw())
        configuration = (
            f"[Interface]\nPrivateKey = {key}\n[Peer]\nPublicKey = {self.ask('identity')['wireguard_public_key']}\n"
            f"PresharedKey = {cast.preshared_key(name)}\nEndpoint = {NODE4}:{PORT}\n"
            f"AllowedIPs = {cast.TUNNEL.network4}, {cast.TUNNEL.network6}\n"
        )
        self.execute("client", "wg", "setconf", link, "/dev/stdin", stdin=configuration.encode())
        # Several devices on one machine: each answers from its own address through its own tunnel.
        for family, address, node in (
            ("-4", f"10.86.{host >> 8}.{host & 255}", cast.TUNNEL.address4),
            ("-6", f"fd86:5e:1::{host:x}", cast.TUNNEL.address6),
        ):
            self.address("client", link, f"{address}/{32 if family == '-4' else 128}")
            self.execute("client", "ip", family, "route", "append", node, "dev", link, "src", address)
            self.execute("client", "ip", family, "route", "add", node, "dev", link, "table", str(host))
            self.execute("client", "ip", family, "rule", "add", "from", address, "table", str(host))
        return link

    def connect(
        self, address: str = cast.TUNNEL.address4, *, timeout_s: float = 5.0, source: str | None = None
    ) -> ssl.SSLSocket:
        """Open TLS to the node from the client's namespace."""
        context = ssl.create_default_context(cadata=authority.ca())

        def open_connection() -> socket.socket:
            return socket.create_connection((address, 443), timeout_s, (source, 0) if source else None)

        plain = inside(self.name("client"), open_connection)
        return context.wrap_socket(plain, server_hostname=address)

    def exchange(self, request: bytes, address: str = cast.TUNNEL.address4, timeout_s: float = 15.0) -> bytes:
        """Send bytes over TLS; return everything that comes back until the node closes."""
        with self.connect(address, timeout_s=timeout_s) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(request)
            return receive_all(connection)

    def workers(self) -> set[int]:
        master = int((self.paths.nginx / "nginx.pid").read_text())
        return {int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()}

    def arrived(self) -> int:
        listing = json.loads(self.execute("node", "nft", "-j", "list", "chain", "inet", "probes", "arrive"))
        rules = [item["rule"] for item in listing["nftables"] if "rule" in item]
        return int(next(step["counter"]["packets"] for step in rules[0]["expr"] if "counter" in step))

    def down(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        for file in (self.paths.nginx / "nginx.pid", self.paths.run / "wireguard-go.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
        if self.stand_ins is not None:
            self.stand_ins.close()
        for role in ("sw", "node", "client", "stranger", "mgmt"):
            subprocess.run(["ip", "netns", "del", self.name(role)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(65536):
            received += data
    return received


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Set a stage with an agent that has applied nothing."""
    # Like /run a tmpfs, and open to NGINX's workers; short, for socket paths end after 107 bytes.
    folder = Path(f"/dev/shm/nx{secrets.token_hex(3)}")
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    built = Stage(folder)
    try:
        built.up()
        built.start_agent()
        yield built
    finally:
        built.down()

"""`appliance demo --local`: cells, notary and receipts without root, without namespaces, without the tunnel.

Bundle, policy, launcher, confinement, engine, notary and receipt are the real ones; what stands between a client and
its cell on a node (WireGuard, nftables, NGINX) and control's machines are not there, and `NOT_SHOWN` says so.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.client.api import Answer, Api
from appliance.client.folder import Folder
from appliance.core import signing
from appliance.core.bundle import Bundle, sign_bundle, verify_bundle
from appliance.core.errors import HostError
from appliance.core.names import encode_base64
from appliance.core.node import NodePaths
from appliance.core.pin import Manifest
from appliance.core.policy import render_policy
from appliance.core.receipt import NodeKey, make_keyring, pseudonym
from appliance.demo.questions import HELLO, QUESTIONS, exchange, prompt, reads
from appliance.models import read_model
from netops.lines import call

NODE = "local"
CLIENTS = ("acme", "bolt")
READY_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 10.0
NOT_SHOWN = [
    "the tunnel, the firewall and NGINX: nothing here listens on any network",
    "control: the bundle was made and signed by this command itself",
    "a stranger, revocation, the management plane",
    "a scan for copies of content: it takes root to read another process's memory",
]
Report = Callable[[str], None]


@dataclass(frozen=True)
class LocalClient:
    """A client of the local demo.

    Attributes:
        name: Its name.
        token: Its bearer token.
        pseudonym_key: 32 bytes.
        address: The tunnel address that it would have.
    """

    name: str
    token: str
    pseudonym_key: bytes
    address: str


def run_local(report: Report) -> dict[str, Any]:
    """Run notary, launcher and two cells as this user in a temporary folder; return the figures of the run."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="appliance-") as folder:
        paths = NodePaths(Path(folder))
        manifest = _place_model(paths)
        services: list[subprocess.Popen[bytes]] = []
        try:
            report("starting notary and launcher")
            services = [_start(paths, "notary"), _start(paths, "launcher")]
            figures = _ask_both(paths, manifest, report)
        finally:
            for service in reversed(services):
                service.send_signal(signal.SIGTERM)
                service.wait(timeout=10)
    return {**figures, "local": True, "not_shown": NOT_SHOWN, "seconds": round(time.monotonic() - started, 1)}


def checks(figures: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return (promise, what was seen, whether it holds)."""
    cells, erase, confinement = figures["cells"], figures["erase"], figures["confinement"]
    return [
        ("a client gets an answer", f"first token after {figures['ttft_ms']} ms", figures["ttft_ms"] > 0),
        reads(figures["conversation"]),
        ("the receipt verifies", figures["receipt"]["id"], figures["receipt"]["verified"]),
        (
            "each client has a cell",
            " ≠ ".join(f"pid {cell['pid']}" for cell in cells.values()),
            len({cell["pid"] for cell in cells.values()}) == len(CLIENTS),
        ),
        ("the session is erased", f"{erase['bytes']} bytes overwritten and read back", erase["verified"]),
        (
            "the cell is confined",
            f"Landlock ABI {confinement['landlock_abi']}, seccomp, network by {confinement['network']}",
            confinement["seccomp"] and confinement["landlock_abi"] > 0,
        ),
    ]


def _place_model(paths: NodePaths) -> Manifest:
    """Put the shipped model where a node keeps its models; return its pin."""
    shipped = read_model()
    paths.models.mkdir(parents=True)
    shutil.copyfile(shipped.weights, paths.models / shipped.manifest.files[0].sha256)
    return shipped.manifest


def _ask_both(paths: NodePaths, manifest: Manifest, report: Report) -> dict[str, Any]:
    clients = [
        LocalClient(name, f"sa_{secrets.token_urlsafe(32)}", secrets.token_bytes(32), f"10.86.0.{number}")
        for number, name in enumerate(CLIENTS, start=2)
    ]
    _provision(paths, _bundle(clients, manifest), clients)
    status = call(paths.notary_control, "status", timeout_s=CALL_TIMEOUT_S)
    keyring = make_keyring(
        (NodeKey(node=NODE, public_key=status["public_key"]),), Ed25519PrivateKey.generate()
    )
    acme, bolt = (_write_folder(paths, client, keyring.canonical_bytes()) for client in clients)
    conversation = []
    for question, with_passages, expected in QUESTIONS:
        report(f"asking: {question}")
        answer, file = _ask(paths, clients[0], acme, prompt(question, with_passages))
        conversation.append(exchange(question, "".join(answer.parts), expected))
    _ask(paths, clients[1], bolt, HELLO)
    if answer.receipt is None:
        raise HostError("the answer came without a receipt")
    verify = [sys.executable, "-I", "-m", "appliance", "receipt", "verify", "--json", str(file)]
    verified = json.loads(subprocess.run(verify, capture_output=True, text=True, check=True).stdout)
    cells = {
        cell["client"]: {"pid": cell["pid"]}
        for cell in call(paths.launcher_socket, "cells", timeout_s=CALL_TIMEOUT_S)["cells"]
    }
    return {
        "conversation": conversation,
        "model": answer.pin,
        "ttft_ms": round(answer.ttft_ms or 0.0, 1),
        "receipt": {"id": answer.receipt_id, "verified": verified["ok"]},
        "cells": cells,
        "erase": answer.receipt.receipt.erase.model_dump(mode="json"),
        "confinement": answer.receipt.receipt.confinement.model_dump(mode="json"),
    }


def _bundle(clients: list[LocalClient], manifest: Manifest) -> Bundle:
    """Make, sign and verify a bundle the way control and a node do."""
    value = {
        "node": NODE,
        "epoch": 1,
        "generation": 1,
        "previous": None,
        "seats": len(clients),
        "tunnel": {
            "listen_port": 51820,
            "address4": "10.86.0.1",
            "address6": "fd86:5e:1::1",
            "network4": "10.86.0.0/16",
            "network6": "fd86:5e:1::/64",
        },
        "tls": None,
        "pins": [manifest.model_dump(mode="json")],
        "clients": [_client(client, manifest) for client in clients],
    }
    key = Ed25519PrivateKey.generate()
    bundle = Bundle.parse(value)
    data, signature = bundle.canonical_bytes(), sign_bundle(bundle, key)
    return verify_bundle(data, signature, public_key=signing.public_text(key), node=NODE, accepted=None)


def _client(client: LocalClient, manifest: Manifest) -> dict[str, Any]:
    number = client.address.rsplit(".", 1)[1]
    device = {
        "name": "laptop",
        "public_key": encode_base64(secrets.token_bytes(32)),
        "preshared_key": encode_base64(secrets.token_bytes(32)),
        "address4": client.address,
        "address6": f"fd86:5e:1::{number}",
        "token_sha256": sha256(client.token.encode()).hexdigest(),
    }
    name = pseudonym(client.pseudonym_key, client.name)
    return {
        "name": client.name,
        "pseudonym": name,
        "models": [manifest.name],
        "limits": {},
        "devices": [device],
    }


def _provision(paths: NodePaths, bundle: Bundle, clients: list[LocalClient]) -> None:
    """Do what the agent does on a node, for the parts that are here."""
    paths.seats.mkdir(parents=True)
    for number in range(bundle.seats):
        (paths.seats / str(number)).touch()
    for client in bundle.clients:
        folder = paths.clients / client.name
        folder.mkdir(parents=True)
        (folder / "policy.json").write_bytes(render_policy(bundle, client).canonical_bytes())
    known = [{"name": client.name, "pseudonym": client.pseudonym} for client in bundle.clients]
    call(paths.notary_control, "clients", clients=known, timeout_s=CALL_TIMEOUT_S)
    call(
        paths.launcher_socket,
        "clients",
        clients=[client.name for client in clients],
        timeout_s=CALL_TIMEOUT_S,
    )


def _write_folder(paths: NodePaths, client: LocalClient, keyring: bytes) -> Folder:
    folder = paths.root / "folders" / client.name
    folder.mkdir(parents=True)
    (folder / "token").write_text(client.token)
    (folder / "receipt-keys.json").write_bytes(keyring + b"\n")
    rest = {
        "client": client.name,
        "pseudonym_key": encode_base64(client.pseudonym_key),
        "base_url": "http://cell/v1",
    }
    (folder / "client.json").write_text(json.dumps(rest))
    return Folder(folder)


def _ask(paths: NodePaths, client: LocalClient, folder: Folder, text: str) -> tuple[Answer, Path]:
    transport = httpx.HTTPTransport(uds=str(paths.clients / client.name / "http.sock"))
    api = Api(folder, transport=transport, headers={"X-Peer-Address": client.address})
    answer = Answer()
    try:
        # Temperature 0: what is shown is the model, not chance.
        for _ in api.chat([{"role": "user", "content": text}], answer, max_tokens=48, temperature=0):
            pass
    finally:
        api.close()
    if answer.receipt is None:
        raise HostError("the answer came without a receipt")
    return answer, folder.keep(answer.receipt)


def _start(paths: NodePaths, verb: str) -> subprocess.Popen[bytes]:
    named = ("--node", NODE) if verb == "notary" else ()
    command = [sys.executable, "-I", "-m", "appliance", verb, "--root", str(paths.root), *named]
    service = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    ready = {"notary": paths.notary_control, "launcher": paths.launcher_socket}[verb]
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not ready.exists():
        if service.poll() is not None or time.monotonic() > deadline:
            raise HostError(f"the {verb} did not start", hint="appliance doctor")
        time.sleep(0.02)
    return service

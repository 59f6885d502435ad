"""A fixed cast for the tests of a node: control's key, bundles with any number of devices, settings."""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core import signing
from appliance.core.bundle import (
    Bundle,
    Client,
    Device,
    Grant,
    Guest,
    Limits,
    Revocation,
    Tls,
    Tunnel,
    sign_bundle,
    sign_grant,
    sign_revocation,
)
from appliance.core.names import encode_base64
from appliance.core.node import NodeSettings
from appliance.core.pin import Launch, Manifest, PinnedFile, Runtime
from netops.agent.memory import Signed

CONTROL = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"control").digest())
IMPOSTOR = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"impostor").digest())
MODEL_BYTES = b"not really a model"

TUNNEL = Tunnel(
    listen_port=51820,
    address4="10.86.0.1",
    address6="fd86:5e:1::1",
    network4="10.86.0.0/16",
    network6="fd86:5e:1::/64",
)


def settings(**changes: object) -> NodeSettings:
    """Return settings of node-a."""
    fields: dict[str, object] = {
        "node": "node-a",
        "outer_interface": "wan0",
        "management_interface": "mgmt0",
        "tunnel_interface": "wg0",
        "control_addresses": ("198.51.100.0",),
        "bundle_key": signing.public_text(CONTROL),
        "services": "launcher",
    }
    return NodeSettings(**{**fields, **changes})  # type: ignore[arg-type]


def digest(text: str) -> bytes:
    """Return 32 bytes that belong to a name."""
    return hashlib.sha256(text.encode()).digest()


def private_key(name: str) -> X25519PrivateKey:
    """Return a device's WireGuard key."""
    return X25519PrivateKey.from_private_bytes(digest(f"wireguard {name}"))


@cache
def public_key(name: str) -> str:
    """Return a device's public key."""
    return encode_base64(private_key(name).public_key().public_bytes_raw())


def preshared_key(name: str) -> str:
    """Return a device's pre-shared key."""
    return encode_base64(digest(f"preshared {name}"))


@cache
def device(client: str, number: int, host: int) -> Device:
    """Return device `number` of a client, with host part `host` (2 to 65534) of both networks."""
    name = f"{client}-{number}"
    return Device(
        name=f"d{number}",
        public_key=public_key(name),
        preshared_key=preshared_key(name),
        address4=f"10.86.{host >> 8}.{host & 255}",
        address6=f"fd86:5e:1::{host:x}",
        token_sha256=digest(f"token {name}").hex(),
    )


@cache
def client(name: str, first: int, devices: int, **limits: int) -> Client:
    """Return a client whose devices have the host parts `first`, `first` + 1, …"""
    return Client(
        name=name,
        pseudonym=digest(f"pseudonym {name}").hex(),
        models=("tiny",),
        limits=Limits(**limits),
        devices=tuple(device(name, n, first + n) for n in range(devices)),
    )


def guest(host: int, **changes: object) -> Guest:
    """Return the throw-away peer of an invitation, with host part `host` of both networks."""
    name = f"guest-{host}"
    fields: dict[str, object] = {
        "public_key": public_key(name),
        "preshared_key": preshared_key(name),
        "address4": f"10.86.{host >> 8}.{host & 255}",
        "address6": f"fd86:5e:1::{host:x}",
        "secret_sha256": digest(f"secret {name}").hex(),
        "expires_at": 2_000_000_000,
        "answer": None,
    }
    return Guest(**{**fields, **changes})  # type: ignore[arg-type]


PIN = Manifest(
    name="tiny",
    version="1.0",
    files=(
        PinnedFile(path="tiny.gguf", size=len(MODEL_BYTES), sha256=hashlib.sha256(MODEL_BYTES).hexdigest()),
    ),
    chat_template="{{ messages }}",
    stop=(),
    launch=Launch(),
    runtime=Runtime(llama_cpp_python="0.3.36"),
    licence="Apache-2.0",
    source="test",
)


def bundle(generation: int = 1, *clients: Client, **changes: object) -> Bundle:
    """Return a bundle for node-a; of acme with one device if no client is named."""
    fields: dict[str, object] = {
        "node": "node-a",
        "epoch": 1,
        "generation": generation,
        "previous": None if generation == 1 else "0" * 63 + "1",
        "seats": 2,
        "tunnel": TUNNEL,
        "tls": None,
        "pins": (PIN,),
        "clients": clients or (client("acme", 2, 1),),
    }
    return Bundle(**{**fields, **changes})  # type: ignore[arg-type]


def with_tls(certificate: str) -> Tls:
    """Return the bundle's field for a certificate."""
    return Tls(certificate=certificate)


def signed(value: Bundle, key: Ed25519PrivateKey = CONTROL) -> Signed:
    """Return a bundle as control sends it."""
    return Signed(value.canonical_bytes().decode("utf-8"), sign_bundle(value, key))


def revocation(
    generation: int = 1, *, keys: tuple[str, ...] = (), clients: tuple[str, ...] = (), **changes: object
) -> Signed:
    """Return a signed revocation as control sends it."""
    fields: dict[str, object] = {
        "node": "node-a",
        "epoch": 1,
        "generation": generation,
        "public_keys": keys,
        "clients": clients,
    }
    value = Revocation(**{**fields, **changes})  # type: ignore[arg-type]
    return Signed(value.canonical_bytes().decode("utf-8"), sign_revocation(value, CONTROL))


def grant(generation: int, *clients: Client, **changes: object) -> Signed:
    """Return a signed grant of these clients' devices as control sends it."""
    fields: dict[str, object] = {"node": "node-a", "epoch": 1, "generation": generation, "clients": clients}
    value = Grant(**{**fields, **changes})  # type: ignore[arg-type]
    return Signed(value.canonical_bytes().decode("utf-8"), sign_grant(value, CONTROL))

"""Makes control's keys, once. Only `appliance control init` and tests call this; nothing is ever overwritten.

| file | kind | for |
|---|---|---|
| keys/bundle.key | Ed25519 | signing bundles and revocations |
| keys/log.key | Ed25519 | certifying the keys that verify receipts |
| keys/checkpoint.key | Ed25519 | signing heads of the log of receipts |
| keys/checkpoint-pq.key | ML-DSA-44 | the same, against quantum computers |
| keys/ca.key | ECDSA P-256 | TLS certificates of nodes and of the console |
| keys/ssh.key | Ed25519, OpenSSH | reaching nodes |
| keys/seal.key | X25519 | opening pre-shared keys that the web process sealed |
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core.errors import HostError
from appliance.core.names import encode_base64
from appliance.core.receipt import make_keyring
from appliance.core.signing import key_id, public_text
from appliance.core.storage import write_new
from appliance.transparency.checkpoint import LogSigner
from control.authority import DOMAIN, Authority, make_ca_certificate
from control.config import ControlPaths

Maker = Callable[[], PrivateKeyTypes]
_MAKERS: dict[str, Maker] = {
    "bundle.key": Ed25519PrivateKey.generate,
    "log.key": Ed25519PrivateKey.generate,
    "checkpoint.key": Ed25519PrivateKey.generate,
    "checkpoint-pq.key": MLDSA44PrivateKey.generate,
    "ca.key": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ssh.key": Ed25519PrivateKey.generate,
    "seal.key": X25519PrivateKey.generate,
}


def make_keys(paths: ControlPaths) -> list[str]:
    """Make every key that is missing; return their names.

    Raises:
        HostError: If a key that is there cannot be read.
    """
    made = []
    for name, make in _MAKERS.items():
        path = paths.keys / name
        if not path.exists():
            write_new(path, _private_text(name, make()), 0o600)
            made.append(name)
    if not paths.secret_key.exists():
        write_new(paths.secret_key, secrets.token_urlsafe(64).encode("ascii"), 0o640)
        made.append("secret.key")
    return made


def publish(paths: ControlPaths) -> None:
    """Write the public half of every key, where it is missing.

    Raises:
        HostError: If a private key cannot be read.
    """
    keys = {name: load_key(paths.keys / name) for name in _MAKERS}
    log, ca = keys["log.key"], keys["ca.key"]
    if not isinstance(log, Ed25519PrivateKey) or not isinstance(ca, ec.EllipticCurvePrivateKey):
        raise HostError("keys/log.key or keys/ca.key is of another kind", hint="restore keys/ from a backup")
    texts: dict[str, Callable[[], str]] = {
        "bundle.pub": lambda: _raw_public(keys["bundle.key"]),
        "log.pub": lambda: _raw_public(log),
        "seal.pub": lambda: _raw_public(keys["seal.key"]),
        "log.vkey": lambda: "".join(f"{key.render()}\n" for key in read_log_signer(paths).verifier_keys),
        "ssh.pub": lambda: _ssh_public(keys["ssh.key"]),
        "ca.pem": lambda: make_ca_certificate(ca),
        "receipt-keys.json": lambda: make_keyring((), log).canonical_bytes().decode("utf-8") + "\n",
    }
    for name, text in texts.items():
        if not (paths.public / name).exists():
            write_new(paths.public / name, text().encode("utf-8"), 0o644)


def make_console_certificate(paths: ControlPaths, names: tuple[str, ...]) -> None:
    """Make the console's own TLS key and certificate, where they are missing."""
    if paths.console_key.exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    write_new(paths.console_key, _private_text("console.key", key), 0o640)
    authority = read_authority(paths)
    write_new(paths.console_certificate, authority.issue(key.public_key(), names).encode("ascii"), 0o644)


def read_authority(paths: ControlPaths) -> Authority:
    """Read the CA.

    Raises:
        HostError: If its key cannot be read or is of another kind.
    """
    key = load_key(paths.keys / "ca.key")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HostError("keys/ca.key is of another kind", hint="restore keys/ from a backup")
    return Authority(key, paths.ca_certificate.read_text("ascii"))


def read_log_signer(paths: ControlPaths) -> LogSigner:
    """Read the keys that sign the log's heads. The log is named after the first: another key, another log.

    Raises:
        HostError: If one cannot be read or is of another kind.
    """
    ed25519 = load_key(paths.keys / "checkpoint.key")
    mldsa44 = load_key(paths.keys / "checkpoint-pq.key")
    if not isinstance(ed25519, Ed25519PrivateKey) or not isinstance(mldsa44, MLDSA44PrivateKey):
        raise HostError("keys/checkpoint*.key is of another kind", hint="restore keys/ from a backup")
    return LogSigner(f"log.{DOMAIN}/{key_id(public_text(ed25519))}", ed25519, mldsa44)


def load_key(path: Path) -> PrivateKeyTypes:
    """Read a private key, PKCS #8 or OpenSSH.

    Raises:
        HostError: If it is missing, unreadable or damaged.
    """
    try:
        content = path.read_bytes()
        if b"OPENSSH PRIVATE KEY" in content:
            return cast("PrivateKeyTypes", serialization.load_ssh_private_key(content, password=None))
        return serialization.load_pem_private_key(content, password=None)
    except (OSError, ValueError) as error:
        raise HostError(
            f"cannot read the private key {path}", hint="run as the reconciler's user, or restore keys/"
        ) from error


def _private_text(name: str, key: PrivateKeyTypes) -> bytes:
    form = serialization.PrivateFormat.OpenSSH if name == "ssh.key" else serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _raw_public(key: PrivateKeyTypes) -> str:
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return encode_base64(raw) + "\n"


def _ssh_public(key: PrivateKeyTypes) -> str:
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode("ascii") + " appliance-control\n"

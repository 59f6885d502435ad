"""Makes control's keys, once, and reads them. Nothing is ever overwritten, but the log's own keys when they are rotated.

| file | kind | for |
|---|---|---|
| keys/bundle.key | Ed25519 | signing bundles and revocations |
| keys/log.key | Ed25519 | certifying the keys that verify receipts |
| keys/checkpoint.key | Ed25519 | signing heads of the log of receipts |
| keys/checkpoint-pq.key | ML-DSA-44 | the same, against quantum computers |
| keys/retiring-checkpoint*.key | both | the same, with the keys before these, while a rotation is under way |
| keys/ca.key | ECDSA P-256 | TLS certificates of nodes and of the console |
| keys/ssh.key | Ed25519, OpenSSH | reaching nodes |
| keys/seal.key | X25519 | opening pre-shared keys that the web process sealed |
| web/secret.key | random | Django's signatures |
| web/factor.key | ChaCha20-Poly1305 | secrets of operators' authenticator apps; the web process alone |
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core.errors import HostError, RefusedError
from appliance.core.names import encode_base64
from appliance.core.receipt import make_keyring
from appliance.core.signing import key_id, public_text
from appliance.core.storage import read_or_none, sync_folder, write_atomic, write_new
from appliance.transparency.checkpoint import LogSigner
from appliance.transparency.errors import LogFormatError
from appliance.transparency.note import VerifierKey
from control.authority import DOMAIN, Authority, make_ca_certificate
from control.config import ControlPaths

LOG_KEYS: Final = ("checkpoint.key", "checkpoint-pq.key")
RETIRING: Final = "retiring-"
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
    if not paths.factor_key.exists():
        write_new(paths.factor_key, (encode_base64(secrets.token_bytes(32)) + "\n").encode("ascii"), 0o600)
        made.append("factor.key")
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
    """Read the keys that sign the log's heads. The log is named after the first that it ever had; other keys follow, the name stays.

    Raises:
        HostError: If one cannot be read or is of another kind.
    """
    ed25519, mldsa44 = _read_pair(paths, "")
    named = read_or_none(paths.log_keys)
    origin = _origin(paths.log_keys, named) if named else f"log.{DOMAIN}/{key_id(public_text(ed25519))}"
    retiring = LogSigner(origin, *_read_pair(paths, RETIRING)) if is_rotating(paths) else None
    return LogSigner(origin, ed25519, mldsa44, retiring)


def is_rotating(paths: ControlPaths) -> bool:
    """Return whether the log has keys that retire."""
    return all((paths.keys / f"{RETIRING}{name}").exists() for name in LOG_KEYS)


def rotate_log_keys(paths: ControlPaths) -> None:
    """Give the log new keys, and let those before them sign along until `retire_log_keys`. A stop in between is harmless: call it again.

    Raises:
        RefusedError: If the keys before have not retired.
        HostError: If a key cannot be read, or is another user's: the reconciler could not read what this one writes.
    """
    _verify_owner(paths)
    _end_cut_off_retirement(paths)
    for name in LOG_KEYS:
        with suppress(FileExistsError):  # the rotation was begun, or the last one has not ended
            os.link(paths.keys / name, paths.keys / f"{RETIRING}{name}")
    sync_folder(paths.keys)
    left = [name for name in LOG_KEYS if _same(paths.keys / name, paths.keys / f"{RETIRING}{name}")]
    if not left:
        raise RefusedError(
            "the log's keys are being rotated", hint="first: appliance control log retire-keys"
        )
    for name in left:
        write_atomic(paths.keys / name, _private_text(name, _MAKERS[name]()), 0o600, durable=True)


def replace_log_keys(paths: ControlPaths) -> LogSigner:
    """Give another log keys and a name of its own in the place of this one's, which are gone then: that log is over. Safe to repeat.

    Raises:
        HostError: If a key cannot be written, or is another user's.
    """
    _verify_owner(paths)
    for name in LOG_KEYS:
        write_atomic(paths.keys / name, _private_text(name, _MAKERS[name]()), 0o600, durable=True)
        (paths.keys / f"{RETIRING}{name}").unlink(missing_ok=True)
    paths.log_keys.unlink(missing_ok=True)
    signer = read_log_signer(paths)
    publish_log_keys(paths, signer)
    return signer


def retire_log_keys(paths: ControlPaths) -> None:
    """Remove the keys before the log's own.

    Raises:
        RefusedError: If there are none, or the rotation has not come to its end.
        HostError: If the keys are another user's.
    """
    _verify_owner(paths)
    if _end_cut_off_retirement(paths):
        return
    if not is_rotating(paths):
        raise RefusedError("the log has no keys that retire", hint="first: appliance control log rotate-keys")
    if any(_same(paths.keys / name, paths.keys / f"{RETIRING}{name}") for name in LOG_KEYS):
        raise RefusedError("the rotation was cut off", hint="end it: appliance control log rotate-keys")
    for name in LOG_KEYS:
        (paths.keys / f"{RETIRING}{name}").unlink()
    sync_folder(paths.keys)


def _end_cut_off_retirement(paths: ControlPaths) -> bool:
    """Remove what a retirement left that was cut off; return whether there was any.

    Both verbs take the keys in the same order, so the second alone is such a rest: taken for a key that retires, it would keep the next
    rotation from replacing its successor.
    """
    first, second = (paths.keys / f"{RETIRING}{name}" for name in LOG_KEYS)
    if first.exists() or not second.exists():
        return False
    second.unlink()
    sync_folder(paths.keys)
    return True


def _verify_owner(paths: ControlPaths) -> None:
    key = paths.keys / LOG_KEYS[0]
    try:
        owner = key.stat().st_uid
    except OSError as error:
        raise HostError(f"cannot read {key}", hint="run as the reconciler's user") from error
    if owner != os.geteuid():
        raise HostError("the log's keys are another user's", hint=f"run as the user with the id {owner}")


def publish_log_keys(paths: ControlPaths, signer: LogSigner) -> None:
    """Show the log's keys to whoever enrols devices, once a head is signed with them."""
    text = "".join(f"{key.render()}\n" for key in signer.verifier_keys).encode("ascii")
    if read_or_none(paths.log_keys) != text:
        write_atomic(paths.log_keys, text, 0o644, durable=True)


def _read_pair(paths: ControlPaths, prefix: str) -> tuple[Ed25519PrivateKey, MLDSA44PrivateKey]:
    ed25519, mldsa44 = (load_key(paths.keys / f"{prefix}{name}") for name in LOG_KEYS)
    if not isinstance(ed25519, Ed25519PrivateKey) or not isinstance(mldsa44, MLDSA44PrivateKey):
        raise HostError(
            f"keys/{prefix}checkpoint*.key is of another kind", hint="restore keys/ from a backup"
        )
    return ed25519, mldsa44


def _origin(path: Path, named: bytes) -> str:
    try:
        return VerifierKey.parse(named.decode("ascii").split("\n")[0]).name
    except (LogFormatError, ValueError) as error:
        raise HostError(f"{path} is damaged", hint="restore public/ from a backup") from error


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


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

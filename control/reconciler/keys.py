"""The private keys, read once at the start of the reconciler. Nothing else in control imports this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core.errors import HostError
from appliance.core.signing import read_private_key
from appliance.transparency.checkpoint import LogSigner
from control.authority import Authority
from control.config import ControlPaths
from control.keyfiles import load_key, read_authority, read_log_signer


@dataclass(frozen=True)
class ReconcilerKeys:
    """What the reconciler signs, certifies and opens with.

    Attributes:
        bundle: Signs bundles and revocations.
        log: Certifies the keys that verify receipts.
        checkpoints: Sign heads of the log.
        authority: Issues TLS certificates.
        seal: Opens pre-shared keys.
        ssh_file: Reaches nodes; read anew for each connection.
    """

    bundle: Ed25519PrivateKey
    log: Ed25519PrivateKey
    checkpoints: LogSigner
    authority: Authority
    seal: X25519PrivateKey
    ssh_file: Path


def read_keys(paths: ControlPaths) -> ReconcilerKeys:
    """Read the keys.

    Raises:
        HostError: If one is missing, unreadable or of another kind.
    """
    seal = load_key(paths.keys / "seal.key")
    if not isinstance(seal, X25519PrivateKey):
        raise HostError("keys/seal.key is of another kind", hint="restore keys/ from a backup")
    return ReconcilerKeys(
        bundle=read_private_key(paths.keys / "bundle.key"),
        log=read_private_key(paths.keys / "log.key"),
        checkpoints=read_log_signer(paths),
        authority=read_authority(paths),
        seal=seal,
        ssh_file=paths.keys / "ssh.key",
    )

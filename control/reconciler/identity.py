"""Learns a node's keys, once; certifies its receipt key and answers its certificate request."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.utils import timezone

from appliance.core.errors import RefusedError
from appliance.core.receipt import Keyring, NodeKey, make_keyring
from appliance.core.storage import write_atomic
from control.audit.models import AlarmKind
from control.audit.services import raise_alarm
from control.authority import DOMAIN, Authority, expires_at, parse_tls_request, public_key_digest
from control.fleet.models import Node
from provisioning.answers import Identity

RENEW_BEFORE = timedelta(days=30)
_LEARNED = ("wireguard_public_key", "receipt_public_key", "tls_public_key")
_keyring_lock = threading.Lock()  # one worker at a time writes the file


def learn_identity(node: Node, identity: Identity, authority: Authority) -> None:
    """Store the keys of a node that is met for the first time; check them ever after.

    Raises:
        RefusedError: If it is another node, or shows another key than the one learned first. Then nothing more is
            sent to it: the bundle holds pre-shared keys.
    """
    if identity.node != node.name:
        raise RefusedError("another node answers under this address", field="node")
    tls_key = parse_tls_request(identity.tls_request)
    shown = {
        "wireguard_public_key": identity.wireguard_public_key,
        "receipt_public_key": identity.receipt_public_key,
        "tls_public_key": public_key_digest(tls_key),
    }
    for name in _LEARNED:
        known = getattr(node, name)
        if known and known != shown[name]:
            raise_alarm(node, AlarmKind.KEY_CHANGED, name)
            raise RefusedError(
                "the node shows another key than the one learned first",
                field=name,
                hint="if the node was reinstalled, add it under a new name",
            )
    changes: dict[str, object] = {
        name: value for name, value in shown.items() if getattr(node, name) != value
    }
    if _needs_certificate(node):
        names = (f"{node.name}.{DOMAIN}", node.address4, node.address6)
        certificate = authority.issue(tls_key, names)
        changes |= {"certificate": certificate, "certificate_expires_at": expires_at(certificate)}
    changes |= {"boot": identity.boot, "version": identity.appliance}
    for name, value in changes.items():
        setattr(node, name, value)
    node.save(update_fields=list(changes))


def publish_keyring(path: Path, log_key: Ed25519PrivateKey) -> Keyring:
    """Write the keys that verify receipts, where they changed, and return them."""
    with _keyring_lock:
        known = Node.objects.exclude(receipt_public_key="").values_list("name", "receipt_public_key")
        keys = tuple(NodeKey(node=name, public_key=key) for name, key in known)
        keyring = make_keyring(keys, log_key)
        text = keyring.canonical_bytes() + b"\n"
        if not path.exists() or path.read_bytes() != text:
            write_atomic(path, text, 0o644, durable=True)
    return keyring


def _needs_certificate(node: Node) -> bool:
    ends = node.certificate_expires_at
    return not node.certificate or ends is None or ends - timezone.now() < RENEW_BEFORE

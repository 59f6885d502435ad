"""Raises the epoch after a restore, and brings it to nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction

from appliance.core.epoch import EpochStatement, sign_statement
from appliance.core.errors import RefusedError
from appliance.core.signing import public_text
from appliance.core.storage import read_or_none
from control.backup.manifest import Restored
from control.backup.models import EpochRaise
from control.clients.models import ClientState, Device, DeviceState
from control.config import ControlPaths
from control.fleet.models import Epoch, current_epoch
from control.hints import hint_on_commit
from control.journal.services import record
from control.journal.vocabulary import Verb
from provisioning.answers import State
from provisioning.node import NodeClient


@dataclass(frozen=True)
class Met:
    """What a node says while control is frozen.

    Attributes:
        epoch: That it is in; 0 before its first bundle.
        peers: Public keys that it lets in; None before its first bundle.
    """

    epoch: int
    peers: frozenset[str] | None


def meet(client: NodeClient) -> Met:
    """Ask a node. Raises as `NodeClient` does."""
    state = client.state()
    if state.accepted is None:
        return Met(state.epoch, None)
    return Met(state.epoch, frozenset(_public_keys(client.observe())))


def find_missing(met: Mapping[str, Met], restored: Restored) -> list[Device]:
    """Return devices of the backup that are active here and not let in by their node: revoked since, most likely.

    A restore would bring them back, and a revocation must outlive it.
    """
    active = Device.objects.filter(
        state=DeviceState.ACTIVE,
        client__state=ClientState.ACTIVE,
        created_at__lte=restored.taken_at,
        client__home__name__in=[name for name, said in met.items() if said.peers is not None],
    )
    homes = active.select_related("client__home").order_by("client__name", "name")
    return [device for device in homes if device.public_key not in (met[device.client.home.name].peers or ())]


def verify_due(restored: Restored | None) -> Restored:
    """Return what the restore left, if the epoch must be raised because of it.

    Raises:
        RefusedError: If control was not restored, or was raised since.
    """
    if restored is None or current_epoch() > restored.epoch:
        raise RefusedError(
            "only after a restore is the epoch raised, once",
            field="epoch",
            hint="appliance control epoch show",
        )
    return restored


def raise_epoch(key: Ed25519PrivateKey, bundle_key: str, highest: int) -> int:
    """Raise control's epoch above every epoch that is known; return it. Nodes are told with the next pass.

    Args:
        key: The restore key.
        bundle_key: Public bundle key, canonical base64.
        highest: Of the nodes' epochs.
    """
    with transaction.atomic():
        before = current_epoch()
        statement = EpochStatement(control=bundle_key, epoch=max(before, highest) + 1)
        EpochRaise.objects.create(
            epoch=statement.epoch,
            statement=statement.canonical_bytes().decode("utf-8"),
            signature=sign_statement(statement, key),
        )
        Epoch.objects.filter(pk=1).update(epoch=statement.epoch)
        hint_on_commit()
        record(Verb.EPOCH_RAISE, "control", {"epoch": (before, statement.epoch)})
    return statement.epoch


def verify_restore_key(key: Ed25519PrivateKey, paths: ControlPaths) -> None:
    """Check that it is the key that nodes were given; return None or raise.

    Raises:
        RefusedError: If it is another one, which no node would believe.
    """
    known = read_or_none(paths.restore_public)
    if known is not None and known.decode("ascii", "replace").strip() != public_text(key):
        raise RefusedError(
            "not the private half of public/restore.pub", field="restore-key", hint="take the one in the safe"
        )


def bring_epoch(client: NodeClient, state: State) -> None:
    """Bring a node to control's epoch, if that was raised. A node without a bundle has nothing to forget, and begins where control is.

    Raises:
        RefusedError: If the node does not believe it.
    """
    if state.epoch == 0:
        return
    raised = EpochRaise.objects.filter(epoch=current_epoch(), epoch__gt=state.epoch).first()
    if raised is not None:
        client.raise_epoch(raised.statement, raised.signature)


def _public_keys(observed: dict[str, Any]) -> list[str]:
    peers = observed.get("peers")
    if not isinstance(peers, list) or not all(isinstance(peer, dict) for peer in peers):
        raise RefusedError("the node's answer is not what the protocol says", field="peers")
    return [str(peer.get("public_key")) for peer in peers]

"""Sends a node the model files that it lacks."""

from __future__ import annotations

from pathlib import Path

from control.pins.models import ModelPin, PinState
from control.pins.services import pinned_paths
from provisioning.node import NodeClient


def send_missing_models(client: NodeClient, held: tuple[str, ...]) -> int:
    """Send every file of an active pin that is not held; return how many were sent.

    The node verifies each against the digest it is sent under, so a file that changed here since it was pinned is
    refused there.

    Raises:
        RefusedError: If the node refuses a file.
        HostError: If a file is gone from this machine.
    """
    missing = {
        pinned.sha256: path
        for pin in ModelPin.objects.filter(state=PinState.ACTIVE)
        for pinned, path in pinned_paths(pin.parsed_manifest(), Path(pin.location))
        if pinned.sha256 not in held
    }
    return sum(client.send_model(path, digest) for digest, path in sorted(missing.items()))

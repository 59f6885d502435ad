"""Sends a node the model files that it lacks, and notes what it has."""

from __future__ import annotations

from control.fleet.models import Node
from control.pins.models import ModelPin, PinState
from control.pins.progress import note_held
from control.pins.services import model_files
from provisioning.node import NodeClient


def send_missing_models(node: Node, client: NodeClient, held: tuple[str, ...]) -> None:
    """Send every file of an active pin that is not held.

    The node verifies each against the digest it is sent under, so a file that changed here since it was verified is refused there.

    Raises:
        RefusedError: If the node refuses a file.
        HostError: If a file is gone from this machine.
    """
    has = set(held)
    note_held(node, has)
    active = ModelPin.objects.filter(state=PinState.ACTIVE)
    wanted = {file.sha256 for pin in active for file in pin.parsed_manifest().files}
    files = model_files()
    for digest in sorted(wanted - has):
        client.send_model(files.path(digest), digest)
        has.add(digest)
        note_held(node, has)

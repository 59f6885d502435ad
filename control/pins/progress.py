"""How far the nodes are with a model: fetched, verified, applied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from appliance.core.bundle import Bundle
from control.fleet.models import Node
from control.pins.models import ModelPin, NodeModels


def note_held(node: Node, digests: Iterable[str]) -> None:
    """Note which files a node has."""
    NodeModels.objects.update_or_create(node=node, defaults={"held": sorted(digests)})


def note_applied(node: Node, bundle: Bundle) -> None:
    """Note which pins are in the bundle that a node accepted."""
    applied = sorted(pin.pin_id for pin in bundle.pins)
    NodeModels.objects.update_or_create(node=node, defaults={"applied": applied})


def node_progress(pin: ModelPin) -> list[dict[str, Any]]:
    """Return, for each node, how far it is with a pin; two queries.

    `fetched` files of `files` are there. `verified`: all are, and the node hashed each when it came. `applied`: the bundle that it
    accepted last has the pin. `error`: the code of its last pass that failed.
    """
    wanted = {file.sha256 for file in pin.parsed_manifest().files}
    told = {models.node_id: models for models in NodeModels.objects.all()}
    rows = []
    for node in Node.objects.only("pk", "name", "last_error"):
        models = told.get(node.pk) or NodeModels()
        fetched = len(wanted.intersection(models.held))
        rows.append(
            {
                "node": node.name,
                "files": len(wanted),
                "fetched": fetched,
                "verified": fetched == len(wanted),
                "applied": pin.pin_id in models.applied,
                "heard_at": models.heard_at,
                "error": node.last_error,
            }
        )
    return rows

"""Answers operators who asked what `apply` would do on a node. The node says it itself; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.utils import timezone

from appliance.core.bundle import Bundle, sign_bundle
from appliance.core.errors import RefusedError
from control.fleet.models import Node, NodePlan
from provisioning.answers import State
from provisioning.node import NodeClient

MAX_LINES: Final = 500  # are kept to be shown; the number of all of them is kept besides


def answer_plan(
    node: Node, client: NodeClient, state: State, number: Callable[[], Bundle], key: Ed25519PrivateKey
) -> None:
    """Ask the node for the plan that somebody waits for, if one does.

    Args:
        node: The node.
        client: Speaks to it.
        state: What it holds.
        number: Returns the bundle that the node should have.
        key: Signs it.

    Raises:
        UnavailableError: If the node does not answer. A node that refuses to plan is an answer, too.
    """
    waiting = NodePlan.objects.filter(node=node, answered_at=None)
    asked = waiting.first()
    if asked is None:
        return
    bundle = number()
    answer: dict[str, object] = {"generation": bundle.generation, "error": "", "actions": [], "total": 0}
    try:
        lines = _uploads(bundle, state) or _ask(client, bundle, key)
        answer |= {"actions": lines[:MAX_LINES], "total": len(lines)}
    except RefusedError as error:
        answer["error"] = error.code
    # Whoever asked again meanwhile waits for the next pass.
    waiting.filter(asked_at=asked.asked_at).update(answered_at=timezone.now(), **answer)


def _uploads(bundle: Bundle, state: State) -> list[str]:
    """Return which model files go first: a node plans nothing with a bundle whose files it does not have."""
    pinned = {file.sha256 for pin in bundle.pins for file in pin.files}
    return [f"send model file {digest}" for digest in sorted(pinned.difference(state.models))]


def _ask(client: NodeClient, bundle: Bundle, key: Ed25519PrivateKey) -> list[str]:
    text = bundle.canonical_bytes().decode("utf-8")
    return list(client.plan(text, sign_bundle(bundle, key)).actions)

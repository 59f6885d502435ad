"""Control brings the log to each node: tiles, the last head, and to its notary the places of its own receipts."""

from __future__ import annotations

import pytest
from control_cast import stored_node
from django.conf import settings
from simulated_node import SimulatedNode

from appliance.core.names import decode_base64
from appliance.core.receipt import NodeKey, make_keyring
from appliance.core.signing import public_text
from appliance.transparency.checkpoint import Policy
from appliance.transparency.merkle import root
from appliance.transparency.note import Note
from appliance.transparency.tiles import TileReader
from control.audit.services import admit_receipt
from control.fleet.models import Node
from control.reconciler import publication as module
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.publication import publish_log
from control.transparency import keeper
from control.transparency.keeper import Keeper
from provisioning.node import NodeClient

pytestmark = pytest.mark.django_db


@pytest.fixture
def nodes(db: None, keys: ReconcilerKeys) -> dict[str, tuple[Node, SimulatedNode]]:
    """Two nodes whose receipt keys are certified."""
    found = {}
    for number, name in ((77, "node-a"), (78, "node-b")):
        row = stored_node(name, number)
        found[name] = row, SimulatedNode(name, public_text(keys.bundle))
    return found


def issue(
    nodes: dict[str, tuple[Node, SimulatedNode]], keys: ReconcilerKeys, name: str, count: int
) -> list[str]:
    certified = (
        NodeKey(node=node.name, public_key=public_text(simulated.receipt_key))
        for node, simulated in nodes.values()
    )
    keyring = make_keyring(tuple(certified), keys.log)
    node, simulated = nodes[name]
    made = [simulated.issue_receipt("ab" * 32) for _ in range(count)]
    for signed in made:
        assert admit_receipt(node, signed, keyring)
    return [signed.receipt.id for signed in made]


def test_a_node_gets_the_log_and_the_places_of_its_own_receipts(
    nodes: dict[str, tuple[Node, SimulatedNode]], keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "TILES", 2)
    monkeypatch.setattr(module, "PLACES", 2)
    folder = settings.PATHS.log.with_name("published-log")
    kept = Keeper(folder, keys.checkpoints)
    policy = Policy(*keys.checkpoints.verifier_keys)
    expected: dict[str, dict[str, int]] = {"node-a": {}, "node-b": {}}
    for name, count in (("node-a", 3), ("node-b", 5), ("node-a", 260)):
        start = sum(map(len, expected.values()))
        ids = issue(nodes, keys, name, count)
        expected[name] |= {receipt: start + place for place, receipt in enumerate(ids)}
        kept.keep()
        for node, simulated in nodes.values():
            publish_log(node, NodeClient(simulated), folder)
            assert simulated.places == expected[node.name]
            head = policy.verify(Note.parse(simulated.checkpoint.encode()))
            assert head.size == start + count
            tree = TileReader(served(simulated), head.size)
            assert root(tree, head.size) == head.root


def served(node: SimulatedNode):  # type: ignore[no-untyped-def]
    return lambda path: decode_base64(node.tiles[path]) if path in node.tiles else None


def test_a_node_that_has_everything_is_sent_nothing(
    nodes: dict[str, tuple[Node, SimulatedNode]], keys: ReconcilerKeys
) -> None:
    folder = settings.PATHS.log.with_name("still-log")
    node, simulated = nodes["node-a"]
    publish_log(node, NodeClient(simulated), folder)
    assert simulated.ops() == [], "there is no log yet"
    issue(nodes, keys, "node-a", 2)
    Keeper(folder, keys.checkpoints).keep()
    publish_log(node, NodeClient(simulated), folder)
    simulated.seen.clear()
    publish_log(node, NodeClient(simulated), folder)
    assert simulated.ops() == ["publish", "places"], "it was asked what it has"

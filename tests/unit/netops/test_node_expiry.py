"""Ends: the node cuts off whoever has come to one by itself, as a revocation would, and nothing brings them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import UnavailableError
from appliance.core.node import NodePaths
from netops import actions
from netops.agent.identity import Identity
from netops.agent.memory import Memory
from netops.agent.models import ModelStore
from netops.agent.passes import Passes
from netops.agent.service import EXPIRY_PERIOD_S
from netops.desired import prune
from netops.expiry import find_ended
from tests.unit.netops import cast
from tests.unit.netops.simulated_world import SimulatedWorld

NOW = 1_800_000_000


class Node:
    """An agent's inside with a simulated world and a clock that the test sets."""

    def __init__(self, root):
        self.paths = NodePaths(root)
        for folder in (self.paths.state, self.paths.keys, self.paths.models):
            folder.mkdir(parents=True, exist_ok=True)
        (self.paths.models / cast.PIN.files[0].sha256).write_bytes(cast.MODEL_BYTES)
        self.world = SimulatedWorld()
        self.now = float(NOW)
        self.restart()

    def restart(self):
        self.memory = Memory(self.paths.state)
        self.passes = Passes(
            cast.settings(),
            self.paths,
            world=self.world,
            memory=self.memory,
            models=ModelStore(self.paths.models),
            identity=Identity(self.paths.keys, "node-a"),
            clock=lambda: self.now,
        )
        self.passes.close()
        return self.passes.recall()

    def apply(self, generation, *clients):
        self.world.done.clear()
        return self.passes.apply(cast.signed(cast.bundle(generation, *clients)))

    @property
    def keys(self):
        return set(self.world.state.peers)


def key(client, number):
    return cast.public_key(f"{client}-{number}")


def acme(first_ends=None, client_ends=None):
    """Acme with two devices, the first of which may end."""
    client = cast.client("acme", 2, 2)
    first = client.devices[0].model_copy(update={"expires_at": first_ends})
    return client.model_copy(update={"devices": (first, client.devices[1]), "expires_at": client_ends})


BOLT = cast.client("bolt", 10, 1)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_a_key_works_until_its_end_and_not_a_look_longer(node):
    node.apply(1, acme(NOW + 60))
    assert not node.passes.expire()
    node.now = NOW + 59.9
    assert not node.passes.expire()
    assert node.keys == {key("acme", 0), key("acme", 1)}
    node.now = NOW + 60
    assert node.passes.expire()
    assert node.keys == {key("acme", 1)}


def test_an_end_is_looked_for_often_enough():
    assert EXPIRY_PERIOD_S < 60


def test_an_end_takes_away_all_that_a_revocation_does_in_the_same_order(tmp_path):
    done = []
    for folder, ends in (("revoked", None), ("expired", NOW + 1)):
        node = Node(tmp_path / folder)
        node.apply(1, acme(ends), BOLT)
        node.world.done.clear()
        if ends is None:
            node.passes.revoke(cast.revocation(1, keys=(key("acme", 0),)))
        else:
            node.now = ends
            node.passes.expire()
        done.append([type(action) for action in node.world.done])
    revoked, expired = done
    assert expired[: len(revoked)] == revoked
    assert revoked == [
        actions.RemovePeers,
        actions.DeleteElements,
        actions.EndFlows,
        actions.WritePolicies,
        actions.RemoveRoutes,
    ]


def test_a_client_that_ends_loses_its_cell_and_leaves_the_others_alone(node):
    node.apply(1, acme(client_ends=NOW + 5), BOLT)
    seen = []
    node.world.before[actions.ServeCells] = lambda: seen.append("acme" in node.world.state.files.policies)
    node.now = NOW + 5
    assert node.passes.expire()
    state = node.world.state
    assert node.keys == {key("bolt", 0)}
    assert state.served.cells == state.served.notary == {"bolt"}
    assert seen == [True]  # its policy said `revoked` before its cell was ended
    assert set(state.files.policies) == {"bolt"}
    assert not node.passes.expire()  # nothing is left to do


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_set_back_lets_nobody_in_again(node, restarts):
    node.apply(1, acme(NOW + 60), BOLT)
    node.now = NOW + 61
    node.passes.expire()
    node.now = 1.0
    stored = node.restart() if restarts else cast.signed(cast.bundle(1, acme(NOW + 60), BOLT))
    node.passes.apply(stored)
    assert node.keys == {key("acme", 1), key("bolt", 0)}


def test_a_node_that_was_off_lets_nobody_in_whose_end_came_meanwhile(node):
    node.apply(1, acme(NOW + 60))
    node.world.__init__()  # what a reboot leaves of it
    node.now = NOW + 3600
    node.passes.apply(node.restart())
    assert node.keys == {key("acme", 1)}


def test_a_bundle_never_lets_in_what_has_ended_and_its_plan_says_so(node):
    node.apply(1, acme())
    late = cast.signed(cast.bundle(2, acme(NOW - 1)))
    assert f"remove peer {key('acme', 0)}" in node.passes.plan(late).lines()
    assert node.keys == {key("acme", 0), key("acme", 1)}  # a plan changes nothing
    node.passes.apply(late)
    assert node.keys == {key("acme", 1)}


def test_a_later_end_in_a_newer_bundle_lets_it_in_again(node):
    node.apply(1, acme(NOW + 1))
    node.now = NOW + 2
    node.passes.expire()
    node.apply(2, acme(NOW + 100))
    assert node.keys == {key("acme", 0), key("acme", 1)}


def test_a_service_that_does_not_answer_holds_up_no_cut_and_is_told_with_the_next_look(node):
    node.apply(1, acme(client_ends=NOW + 1), BOLT)
    node.now, node.world.fail_at = NOW + 1, actions.ServeCells
    with pytest.raises(UnavailableError):
        node.passes.expire()
    assert node.keys == {key("bolt", 0)}
    assert node.world.state.served.cells == {"acme", "bolt"}
    node.world.fail_at = None
    assert node.passes.expire()
    assert node.world.state.served.cells == {"bolt"}


def test_without_a_bundle_nothing_ends(node):
    assert not node.passes.expire()


@given(
    st.lists(st.none() | st.integers(NOW - 3, NOW + 3), min_size=1, max_size=4),
    st.none() | st.integers(NOW - 3, NOW + 3),
)
def test_exactly_those_end_whose_time_has_come(device_ends, client_ends):
    client = cast.client("acme", 2, len(device_ends))
    devices = tuple(
        device.model_copy(update={"expires_at": end})
        for device, end in zip(client.devices, device_ends, strict=True)
    )
    client = client.model_copy(update={"devices": devices, "expires_at": client_ends})
    left = prune(cast.bundle(1, client), *find_ended(cast.bundle(1, client), NOW))
    if client_ends is not None and client_ends <= NOW:
        assert left.clients == ()
    else:
        assert left.clients[0].devices == tuple(
            device for device in devices if device.expires_at is None or device.expires_at > NOW
        )

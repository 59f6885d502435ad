"""The agent's passes over a simulated world: order, failure, restoration, and revocations that come in between."""

import pytest

from appliance.core.bundle import Accepted
from appliance.core.errors import BundleError, HostError, PinError, UnavailableError
from appliance.core.node import NodePaths
from appliance.core.policy import Policy
from netops import actions
from netops.agent.identity import Identity
from netops.agent.memory import Memory
from netops.agent.models import ModelStore
from netops.agent.passes import Passes
from tests.unit.netops import cast
from tests.unit.netops.simulated_world import SimulatedWorld

ACME = ("acme", 2, 2)
BOLT = ("bolt", 10, 1)


class Node:
    """An agent's inside with a simulated world and real files of its own."""

    settings = {}

    def __init__(self, root):
        self.paths = NodePaths(root)
        for folder in (self.paths.state, self.paths.keys, self.paths.models):
            folder.mkdir(parents=True, exist_ok=True)
        (self.paths.models / cast.PIN.files[0].sha256).write_bytes(cast.MODEL_BYTES)
        self.world = SimulatedWorld()
        self.restart()

    def restart(self):
        self.memory = Memory(self.paths.state)
        self.passes = Passes(
            cast.settings(**self.settings),
            self.paths,
            world=self.world,
            memory=self.memory,
            models=ModelStore(self.paths.models),
            identity=Identity(self.paths.keys, "node-a"),
        )
        self.passes.close()
        return self.passes.recall()

    def apply(self, generation, *clients, **changes):
        value = bundle(generation, *clients, **changes)
        self.world.done.clear()
        return self.passes.apply(cast.signed(value))

    @property
    def keys(self):
        return self.world.state.peers.keys()

    def policy(self, client):
        return Policy.parse_canonical(self.world.state.files.policies[client])


def bundle(generation, *clients, **changes):
    value = cast.bundle(generation, *(cast.client(*spec) for spec in clients), **changes)
    return value if clients else value.model_copy(update={"clients": ()})


def key(client, number):
    return cast.public_key(f"{client}-{number}")


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_before_any_bundle_everything_but_management_is_closed(node):
    firewall = node.world.state.firewall
    assert "dport 22" in firewall.rules
    assert "51820" not in firewall.rules


def test_an_applied_bundle_is_in_force_and_accepted(node):
    applied = node.apply(1, ACME)
    assert applied.accepted == Accepted(epoch=1, generation=1, digest=bundle(1, ACME).digest)
    assert node.keys == {key("acme", 0), key("acme", 1)}
    assert node.memory.accepted == applied.accepted


def test_the_same_bundle_again_changes_nothing_but_tells_the_services_once_more(node):
    node.apply(1, ACME)
    again = node.apply(1, ACME)
    assert again.lines == []
    assert [type(action) for action in node.world.done] == [actions.ServeNotary, actions.ServeCells]


def test_the_same_bundle_again_repairs_drift(node):
    node.apply(1, ACME)
    node.world.apply(actions.RemovePeers((key("acme", 0),)))
    assert node.apply(1, ACME).lines == [f"add peer {key('acme', 0)} 10.86.0.2/32,fd86:5e:1::2/128"]


def test_a_plan_is_exactly_what_is_done(node):
    node.apply(1, ACME)
    following = cast.signed(bundle(2, BOLT))
    planned = node.passes.plan(following).lines()
    assert node.passes.apply(following).lines == planned
    assert len(planned) > 10


def test_a_failure_brings_the_old_state_back(node):
    node.apply(1, ACME)
    before = node.world.state
    node.world.fail_at = actions.WriteRoutes
    with pytest.raises(UnavailableError):
        node.apply(2, ACME, BOLT)
    assert node.world.state.peers == before.peers
    assert node.world.state.firewall == before.firewall
    assert node.memory.accepted.generation == 1


def test_a_removal_is_not_rolled_back_when_the_rest_fails(node):
    node.apply(1, ACME, BOLT)
    node.world.fail_at = actions.WriteSeats
    with pytest.raises(UnavailableError):
        node.apply(2, ACME, seats=3)
    assert node.keys == {key("acme", 0), key("acme", 1)}
    assert "bolt" not in node.world.state.files.policies


def test_a_removal_of_a_failed_bundle_stays_although_the_old_bundle_comes_again(node):
    node.apply(1, ACME, BOLT)
    node.world.fail_at = actions.WriteSeats
    with pytest.raises(UnavailableError):
        node.apply(2, ACME, seats=3)
    node.world.fail_at = None
    node.apply(1, ACME, BOLT)
    assert key("bolt", 0) not in node.keys
    node.restart()
    node.apply(1, ACME, BOLT)
    assert key("bolt", 0) not in node.keys


def test_a_newer_bundle_may_grant_again_what_was_removed(node):
    node.apply(1, ACME, BOLT)
    node.apply(2, ACME)
    node.apply(3, ACME, BOLT)
    assert key("bolt", 0) in node.keys


def test_a_first_bundle_that_fails_leaves_the_node_closed(node):
    node.world.fail_at = actions.SetPeers
    with pytest.raises(UnavailableError):
        node.apply(1, ACME)
    assert node.keys == set()
    assert node.world.state.interface is None
    assert node.memory.accepted is None


def test_what_does_not_take_effect_is_found_by_reading_back(node):
    node.world.drop = actions.AddElements
    with pytest.raises(HostError, match="4 changes are left"):
        node.apply(1, ACME)
    assert node.memory.accepted is None


def test_a_revocation_takes_peer_address_policy_and_route_away(node):
    node.apply(1, ACME)
    revoked = node.passes.revoke(cast.revocation(1, keys=(key("acme", 0),)))
    assert revoked.removed == [key("acme", 0)]
    state = node.world.state
    assert node.keys == {key("acme", 1)}
    assert state.firewall.peers4 == {"10.86.0.3"}
    assert state.firewall.peers6 == {"fd86:5e:1::3"}
    assert [device.address4 for device in node.policy("acme").devices] == ["10.86.0.3"]
    assert set(state.files.routes) == {"10.86.0.3.sock", "v6-3.sock"}


def test_a_repeated_old_bundle_does_not_bring_a_revoked_device_back(node):
    node.apply(1, ACME)
    node.passes.revoke(cast.revocation(1, keys=(key("acme", 0),)))
    assert node.apply(1, ACME).lines == []
    assert node.keys == {key("acme", 1)}
    node.restart()
    node.apply(1, ACME)
    assert node.keys == {key("acme", 1)}


def test_a_revoked_client_is_told_so_and_dropped_by_notary_and_launcher(node):
    node.apply(1, ACME, BOLT)
    seen = []
    node.world.before[actions.ServeCells] = lambda: seen.append(node.policy("acme").revoked)
    revoked = node.passes.revoke(cast.revocation(1, clients=("acme",)))
    assert revoked.ended == ["acme"]
    assert sorted(revoked.removed) == sorted([key("acme", 0), key("acme", 1)])
    assert seen == [True]
    assert node.world.state.served.cells == {"bolt"}
    assert node.world.state.served.notary == {"bolt"}
    node.apply(1, ACME, BOLT)
    assert set(node.world.state.files.policies) == {"bolt"}


def test_a_revocation_in_the_middle_of_a_pass_wins(node):
    node.apply(1, ACME)
    revocation = cast.revocation(2, keys=(key("bolt", 0),))
    node.world.before[actions.WriteRoutes] = lambda: _in_thread(node, revocation)
    node.apply(2, ACME, BOLT)
    assert key("bolt", 0) not in node.keys
    assert "10.86.0.10" not in node.world.state.firewall.peers4


def _in_thread(node, revocation):
    """Begin a revocation and go on once it is in force; it ends when the pass lets go of the tables."""
    import threading

    mark = node.memory.mark
    threading.Thread(target=node.passes.revoke, args=(revocation,)).start()
    while node.memory.mark == mark:
        pass


def test_a_revocation_cuts_the_tunnel_although_the_launcher_does_not_answer(node):
    node.apply(1, ACME)
    node.world.fail_at = actions.ServeCells
    with pytest.raises(UnavailableError):
        node.passes.revoke(cast.revocation(1, clients=("acme",)))
    assert node.keys == set()
    assert node.world.state.firewall.peers4 == frozenset()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"node": "node-b"}, "node"),
        ({"epoch": 2}, "epoch"),
        ({"generation": 1}, "generation"),
    ],
)
def test_a_revocation_that_is_not_for_this_state_is_refused(node, change, field):
    node.apply(1, ACME)
    node.apply(2, ACME)
    with pytest.raises(BundleError) as refused:
        node.passes.revoke(cast.revocation(**{"generation": 2, "keys": (key("acme", 0),), **change}))
    assert refused.value.field == field
    assert key("acme", 0) in node.keys


def test_a_model_file_that_is_not_there_is_refused_before_anything_changes(node):
    (node.paths.models / cast.PIN.files[0].sha256).unlink()
    before = node.world.state
    with pytest.raises(PinError) as refused:
        node.apply(1, ACME)
    assert refused.value.field == "pins.0.files.0"
    assert node.world.state == before


def test_a_model_file_of_another_size_is_refused(node):
    (node.paths.models / cast.PIN.files[0].sha256).write_bytes(b"short")
    with pytest.raises(PinError) as refused:
        node.apply(1, ACME)
    assert refused.value.field == "pins.0.files.0.size"


def test_a_certificate_for_another_key_is_refused_before_anything_changes(node, tmp_path):
    from tests.unit.netops.authority import issue

    other = Identity(tmp_path, "node-a")
    before = node.world.state
    with pytest.raises(BundleError) as refused:
        node.apply(1, ACME, tls=cast.with_tls(issue(other.tls_request())))
    assert refused.value.field == "tls.certificate"
    assert node.world.state == before


def test_a_stored_bundle_is_recalled_after_a_restart_while_control_is_down(node):
    node.apply(1, ACME)
    node.world.__init__()
    stored = node.restart()
    assert node.keys == set()
    node.passes.apply(stored)
    assert node.keys == {key("acme", 0), key("acme", 1)}


def test_a_stored_bundle_that_somebody_changed_is_not_recalled(node):
    node.apply(1, ACME)
    file = node.paths.state / "bundle.json"
    file.write_text(file.read_text().replace("10.86.0.2", "10.86.0.9"))
    with pytest.raises(BundleError):
        node.restart()


def test_a_changed_bundle_of_the_same_number_after_a_restart_is_an_alarm(node):
    node.apply(1, ACME)
    node.restart()
    with pytest.raises(BundleError) as refused:
        node.apply(1, BOLT)
    assert refused.value.field == "generation"


def test_a_device_that_moves_to_another_client_leaves_the_first_for_good(node):
    node.apply(1, ACME, BOLT)
    moved = cast.client("acme", 2, 2).devices[1]
    acme, bolt = cast.client(*ACME), cast.client(*BOLT)
    value = cast.bundle(
        2,
        acme.model_copy(update={"devices": acme.devices[:1]}),
        bolt.model_copy(update={"devices": (moved.model_copy(update={"name": "moved"}), *bolt.devices)}),
        seats=3,
    )
    node.world.fail_at = actions.WriteSeats
    with pytest.raises(UnavailableError):
        node.passes.apply(cast.signed(value))
    assert [device.name for device in node.policy("acme").devices] == ["d0"]
    node.world.fail_at = None
    node.passes.apply(cast.signed(value))
    assert node.world.state.files.routes["10.86.0.3.sock"] == "bolt"

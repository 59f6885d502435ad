"""Grants: devices that connect before the bundle with them comes, and never past what was revoked."""

import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import BundleError, HostError, UnavailableError
from netops import actions
from netops.desired import extend, render_state
from netops.grant import plan_grant
from netops.plan import plan
from netops.simulate import simulate
from tests.unit.netops import cast
from tests.unit.netops.test_passes import ACME, BOLT, Node, key

PHONE = cast.client("acme", 2, 3)  # acme's third device, with the two that it has


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def only(client, *numbers):
    return client.model_copy(update={"devices": tuple(client.devices[number] for number in numbers)})


def test_a_granted_device_has_policy_route_address_and_last_of_all_its_peer(node):
    node.apply(1, ACME)
    node.world.done.clear()
    granted = node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert granted.added == [key("acme", 2)]
    assert [type(action) for action in node.world.done] == [
        actions.WritePolicies,
        actions.WriteRoutes,
        actions.AddElements,
        actions.SetPeers,
    ]
    assert node.keys == {key("acme", number) for number in range(3)}
    assert [device.address4 for device in node.policy("acme").devices][-1] == "10.86.0.4"


def test_the_bundle_that_follows_only_has_its_number_to_write(node):
    node.apply(1, ACME)
    node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert node.apply(2, ("acme", 2, 3)).lines == ["write policy of acme"]


def test_a_client_that_is_new_comes_with_notary_and_cell_before_its_peer(node):
    node.apply(1, ACME)
    node.world.done.clear()
    node.passes.grant(cast.grant(1, cast.client("bolt", 10, 1)))
    done = [type(action) for action in node.world.done]
    assert done.index(actions.ServeNotary) < done.index(actions.ServeCells) < done.index(actions.SetPeers)
    assert node.world.state.served.cells == {"acme", "bolt"}
    assert node.apply(2, ACME, BOLT).lines == ["write policy of acme", "write policy of bolt"]


def test_a_pass_over_the_same_bundle_keeps_what_was_granted_and_so_does_a_restart(node):
    node.apply(1, ACME)
    node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert node.apply(1, ACME).lines == []
    stored = node.restart()
    node.passes.apply(stored)
    assert key("acme", 2) in node.keys


def test_a_later_bundle_without_the_device_ends_the_grant(node):
    node.apply(1, ACME)
    node.passes.grant(cast.grant(1, only(PHONE, 2)))
    node.apply(2, ACME, BOLT)
    assert key("acme", 2) not in node.keys
    with pytest.raises(BundleError):  # the same text once more
        node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert key("acme", 2) not in node.keys


def test_the_bundle_that_was_under_way_does_not_take_a_granted_device_away(node):
    node.apply(1, ACME)
    node.passes.grant(
        cast.grant(2, only(PHONE, 2))
    )  # made after 2 was sent, which holds bolt but not the phone
    node.apply(2, ACME, BOLT)
    assert key("acme", 2) in node.keys
    node.apply(3, ACME, BOLT)
    assert key("acme", 2) not in node.keys


def test_a_grant_sent_again_brings_no_revoked_device_back(node):
    node.apply(1, ACME)
    grant = cast.grant(1, only(PHONE, 2))
    node.passes.grant(grant)
    node.passes.revoke(cast.revocation(1, keys=(key("acme", 2),)))
    assert key("acme", 2) not in node.keys
    assert node.passes.grant(grant).added == []
    assert key("acme", 2) not in node.keys
    node.restart()
    node.apply(1, ACME)
    assert key("acme", 2) not in node.keys


def test_a_revoked_client_gets_no_device_by_a_grant(node):
    node.apply(1, ACME, BOLT)
    node.passes.revoke(cast.revocation(1, clients=("acme",)))
    node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert node.keys == {key("bolt", 0)}
    assert node.world.state.served.cells == {"bolt"}


def test_a_revocation_in_the_middle_of_a_grant_wins(node):
    node.apply(1, ACME)
    revocation = cast.revocation(1, keys=(key("acme", 2),))

    def revoke():
        mark = node.memory.mark
        threading.Thread(target=node.passes.revoke, args=(revocation,)).start()
        while node.memory.mark == mark:
            pass

    node.world.before[actions.WriteRoutes] = revoke
    node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert key("acme", 2) not in node.keys


def test_a_step_that_fails_is_made_up_by_the_next_pass(node):
    node.apply(1, ACME)
    node.world.fail_at = actions.AddElements
    with pytest.raises(UnavailableError):
        node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert key("acme", 2) not in node.keys  # the peer comes last
    node.world.fail_at = None
    node.apply(1, ACME)
    assert key("acme", 2) in node.keys


def test_a_failed_bundle_leaves_granted_devices_in(node):
    node.apply(1, ACME)
    node.passes.grant(cast.grant(1, only(PHONE, 2)))
    node.world.fail_at = actions.ServeCells
    with pytest.raises((UnavailableError, HostError)):
        node.apply(2, ("acme", 2, 3), BOLT)
    assert key("acme", 2) in node.keys


@pytest.mark.parametrize(
    ("client", "field"),
    [
        # an address that another device has, the node's own, one outside the network, a model that is not pinned
        (cast.client("bolt", 2, 1), "clients.1.devices.0.address4"),
        (cast.client("bolt", 1, 1), "clients.1.devices.0.address4"),
        (cast.client("bolt", 10, 1).model_copy(update={"models": ("other",)}), "clients.1.models.0"),
    ],
)
def test_a_grant_that_does_not_fit_the_bundle_in_force_changes_nothing(node, client, field):
    node.apply(1, ACME)
    before = node.world.state
    with pytest.raises(BundleError) as refused:
        node.passes.grant(cast.grant(1, client))
    assert refused.value.field == field
    assert node.world.state is before
    assert node.apply(1, ACME).lines == []


def test_before_any_bundle_nothing_is_granted(node):
    with pytest.raises(BundleError):
        node.passes.grant(cast.grant(1, only(PHONE, 2)))
    assert node.keys == set()


def test_a_grant_leaves_limits_and_models_of_a_client_that_is_there_alone(node):
    node.apply(1, ACME)
    generous = cast.client("acme", 2, 3, sessions=200)
    node.passes.grant(cast.grant(1, only(generous, 2)))
    assert node.policy("acme").limits.sessions == 8


@given(st.data())
def test_what_a_grant_does_at_once_is_what_a_pass_would_do(data):
    """The law: plan_grant leads to the state that the extended bundle renders to, whatever was there before."""
    counts = st.dictionaries(st.sampled_from(["acme", "bolt", "cork"]), st.integers(0, 3), max_size=3)
    firsts = {"acme": 2, "bolt": 10, "cork": 20}
    before = cast.bundle(1).model_copy(
        update={"clients": tuple(cast.client(n, firsts[n], c) for n, c in sorted(data.draw(counts).items()))}
    )
    granted = [cast.client(n, firsts[n], c) for n, c in sorted(data.draw(counts).items())]
    after = extend(before, granted)
    paths = SimpleNamespace(run=None)
    have, want = (
        render_state(value, cast.settings(), paths, cast.public_key("node")) for value in (before, after)
    )
    assert simulate(plan_grant(before, after), have) == want
    assert not plan(want, want)

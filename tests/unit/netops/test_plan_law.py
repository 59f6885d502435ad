"""The law of plans: carried out, a plan leads to what is wanted; and there is nothing to do when it is there."""

from hypothesis import given, settings
from hypothesis import strategies as st

from netops import actions
from netops.model import Files, Firewall, Interface, Peer, Served, State, Web
from netops.plan import PEERS_PER_ACTION, plan
from netops.simulate import simulate
from tests.unit.netops import cast

NAMES = st.sampled_from(["acme", "bolt", "cora", "dyne"])
KEYS = [cast.public_key(str(number)) for number in range(6)]
PRESHARED = [cast.preshared_key(str(number)) for number in range(3)]
NETWORKS = (
    [f"10.86.0.{n}/32" for n in range(2, 8)] + [f"fd86:5e:1::{n}/128" for n in range(2, 6)] + ["10.9.0.0/16"]
)
ADDRESSES4 = st.frozensets(st.sampled_from([f"10.86.0.{n}" for n in range(2, 8)]))
ADDRESSES6 = st.frozensets(st.sampled_from([f"fd86:5e:1::{n}" for n in range(2, 8)]))


@st.composite
def peer_tables(draw, observed):
    """Peers whose networks are disjoint, as cryptokey routing keeps them."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    owners = draw(st.lists(st.sampled_from([*keys, None]), min_size=len(NETWORKS), max_size=len(NETWORKS)))
    preshared = st.sampled_from([*PRESHARED, None] if observed else PRESHARED)
    keepalive = st.sampled_from([0, 25]) if observed else st.just(0)
    return {
        key: Peer(
            key,
            draw(preshared),
            frozenset(network for network, owner in zip(NETWORKS, owners, strict=True) if owner == key),
            draw(keepalive),
        )
        for key in keys
    }


@st.composite
def interfaces(draw, observed):
    return Interface(
        public_key=draw(st.sampled_from([*KEYS[:2], None] if observed else KEYS[:2])),
        listen_port=draw(st.sampled_from([51820, 51821])),
        addresses=draw(st.frozensets(st.sampled_from(["10.86.0.1/16", "fd86:5e:1::1/64", "10.1.1.1/32"]))),
        mtu=draw(st.sampled_from([1280, 1420])),
        up=draw(st.booleans()) if observed else True,
    )


@st.composite
def states(draw, observed):
    clients = draw(st.frozensets(NAMES))
    policy = st.sampled_from([b"", b"damaged", b"{}"] if observed else [b"one", b"two"])
    interface = draw(st.none() | interfaces(observed))
    running = draw(st.booleans())
    texts = st.sampled_from(["one", "two"])
    return State(
        firewall=Firewall(
            draw(texts) if not observed else draw(st.none() | texts),
            draw(ADDRESSES4),
            draw(ADDRESSES6),
            draw(ADDRESSES4),
            draw(ADDRESSES6),
        ),
        interface=interface,
        peers=draw(peer_tables(observed)) if interface else {},
        files=Files(
            policies={client: draw(policy) for client in clients},
            routes=draw(st.dictionaries(st.sampled_from(["a.sock", "b.sock", "c.sock"]), NAMES)),
            seats=draw(st.frozensets(st.sampled_from(["0", "1", "2"]))),
            roster=draw(st.none() | st.sampled_from([b"one", b"two"])),
        ),
        served=Served(notary=draw(st.frozensets(NAMES)), cells=draw(st.frozensets(NAMES))),
        web=Web(True, draw(texts), draw(texts)) if running else Web(observed and draw(st.booleans())),
    )


@settings(max_examples=400)
@given(have=states(True), want=states(False))
def test_a_plan_leads_to_what_is_wanted(have, want):
    assert simulate(plan(have, want), have) == want


@given(want=states(False))
def test_there_is_nothing_to_do_when_it_is_there(want):
    assert not plan(want, want)
    assert plan(want, want).lines() == []


@given(have=states(True), want=states(False))
def test_removals_alone_add_no_peer_and_open_nothing(have, want):
    after = simulate(plan(have, want).removals, have)
    assert after.peers.keys() <= have.peers.keys()
    assert after.firewall.peers4 <= have.firewall.peers4
    assert after.firewall.guests6 <= have.firewall.guests6
    assert after.files.routes.items() <= have.files.routes.items()


@given(have=states(True), want=states(False))
def test_a_plan_says_each_thing_that_it_does(have, want):
    steps = plan(have, want)
    assert all(list(action.lines()) for action in steps)
    assert bool(steps) == bool(steps.lines())


def test_a_changed_preshared_key_is_a_difference():
    key = KEYS[0]
    networks = frozenset({"10.86.0.2/32"})
    base = State(Firewall("rules"), Interface(key, 51820, frozenset(), 1420))
    have = State(base.firewall, base.interface, {key: Peer(key, PRESHARED[0], networks)})
    want = State(base.firewall, base.interface, {key: Peer(key, PRESHARED[1], networks)})
    assert plan(have, want).lines() == [f"change peer {key} 10.86.0.2/32"]


def test_revocation_removes_the_peer_first_and_granting_adds_it_last():
    bundle_state = _state_with(("acme", 2, 1))
    empty = _state_with()
    removals = [type(action) for action in plan(bundle_state, empty).removals]
    assert removals[:3] == [actions.RemovePeers, actions.DeleteElements, actions.EndFlows]
    assert removals.index(actions.RevokePolicies) < removals.index(actions.ServeNotary)
    assert removals.index(actions.ServeNotary) < removals.index(actions.ServeCells)
    additions = [type(action) for action in plan(empty, bundle_state).additions]
    order = [
        actions.WritePolicies,
        actions.ServeNotary,
        actions.ServeCells,
        actions.WriteRoutes,
        actions.AddElements,
        actions.SetPeers,
    ]
    assert additions == order


def test_a_revocation_never_waits_for_all_of_many_peers():
    steps = plan(_state_with(), _state_with(("acme", 2, 4500))).additions
    sizes = [len(action.peers) for action in steps if isinstance(action, actions.SetPeers)]
    assert sizes == [PEERS_PER_ACTION, PEERS_PER_ACTION, 500]


def test_nothing_is_reachable_before_the_firewall_is_loaded():
    steps = plan(State(Firewall(None)), _state_with(("acme", 2, 1)))
    assert isinstance(steps.additions[0], actions.LoadFirewall)
    assert isinstance(steps.additions[1], actions.ConfigureInterface)


def _state_with(*clients):
    from appliance.core.node import NodePaths
    from netops.desired import render_state

    value = cast.bundle(1, *(cast.client(*spec) for spec in clients)) if clients else cast.bundle(1)
    if not clients:
        value = value.model_copy(update={"clients": ()})
    return render_state(value, cast.settings(), NodePaths(), KEYS[0])

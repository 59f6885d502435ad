"""The difference between what a node holds and what it should, as an ordered plan. Pure.

Order of removals: peer, firewall element, flows, policy (the cell ends its requests), then for clients that are gone
revoked policy, notary, cells, routes, folder. Order of additions: firewall rules, interface, seats, policies, notary,
cells, routes, NGINX, firewall elements, and the peer last: nothing is reachable before all of it is there.

The law, tested with generated states: `simulate(plan(have, want), have) == want` and `plan(want, want)` is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from appliance.core.errors import RefusedError
from appliance.core.policy import Policy
from netops import actions
from netops.actions import Action
from netops.model import Account, Files, Firewall, Interface, Peer, Served, State, Web
from netops.nftables import SETS

# A revocation waits for at most one action, so no action may take long: each of these takes about 0.2 s.
PEERS_PER_ACTION = 2000
ROUTES_PER_ACTION = 4000
POLICIES_PER_ACTION = 100

T = TypeVar("T")
_UNKNOWN = Account("")  # in a state that was generated; `render_state` knows everybody's


@dataclass(frozen=True)
class Plan:
    """What to do, in this order. Removals go first and are never rolled back."""

    removals: tuple[Action, ...]
    additions: tuple[Action, ...]

    def __iter__(self) -> Iterator[Action]:
        yield from self.removals
        yield from self.additions

    def __bool__(self) -> bool:
        return bool(self.removals or self.additions)

    def lines(self) -> list[str]:
        """Return what it does, one line for each change."""
        return [line for action in self for line in action.lines()]


def plan(have: State, want: State) -> Plan:
    """Return what leads from one state to the other."""
    peers = _plan_peers(have.peers, want.peers)
    firewall = _plan_firewall(have, want)
    interface = _plan_interface(have.interface, want.interface)
    files = _plan_files(have.files, want.files)
    served = _plan_served(have.served, want.served)
    web = _plan_web(have.web, want.web)
    policies = (actions.WritePolicies, actions.RevokePolicies)
    return Plan(
        removals=(
            *peers.removals,
            *firewall.removals,
            *(action for action in files.removals if isinstance(action, policies)),
            *served.removals,
            *(action for action in files.removals if not isinstance(action, policies)),
            *web.removals,
            *interface.removals,
        ),
        additions=(
            *(action for action in firewall.additions if isinstance(action, actions.LoadFirewall)),
            *interface.additions,
            *(action for action in files.additions if not isinstance(action, actions.WriteRoutes)),
            *served.additions,
            *(action for action in files.additions if isinstance(action, actions.WriteRoutes)),
            *web.additions,
            *(action for action in firewall.additions if isinstance(action, actions.AddElements)),
            *peers.additions,
        ),
    )


def _plan_peers(have: Mapping[str, Peer], want: Mapping[str, Peer]) -> Plan:
    gone = tuple(sorted(have.keys() - want.keys()))
    changed = frozenset(key for key, peer in want.items() if key in have and have[key] != peer)
    # What WireGuard cannot be told to forget in place: a pre-shared key that is not wanted any more.
    unset = {k for k in changed if want[k].preshared_key is None and have[k].preshared_key is not None}
    removed = tuple(sorted({*gone, *unset}))
    added = [want[key] for key in sorted(want.keys() - have.keys() | changed)]
    return Plan(
        removals=(actions.RemovePeers(removed),) if removed else (),
        additions=tuple(
            actions.SetPeers(tuple(batch), frozenset(p.public_key for p in batch) & (changed - unset))
            for batch in _batches(added, PEERS_PER_ACTION)
        ),
    )


def _plan_firewall(have: State, want: State) -> Plan:
    old, new = have.firewall, want.firewall
    gone = {name: _sorted(getattr(old, name) - getattr(new, name)) for name in SETS}
    addresses = {address for elements in gone.values() for address in elements}
    flows = _sorted({*addresses, *_addresses_of_removed_peers(have, want)})
    removals: list[Action] = []
    if addresses:
        removals.append(actions.DeleteElements(**gone))
    if flows:
        removals.append(actions.EndFlows(flows))
    return Plan(tuple(removals), tuple(_firewall_additions(old, new)))


def _firewall_additions(have: Firewall, want: Firewall) -> Iterator[Action]:
    if want.rules is not None and have.rules != want.rules:
        kept = {name: _sorted(getattr(have, name) & getattr(want, name)) for name in SETS}
        yield actions.LoadFirewall(want.rules, **kept)
    added = {name: _sorted(getattr(want, name) - getattr(have, name)) for name in SETS}
    if any(added.values()):
        yield actions.AddElements(**added)


def _addresses_of_removed_peers(have: State, want: State) -> Iterator[str]:
    """Yield host addresses that a peer holds and none will hold; the firewall may not have known them."""
    wanted = {network for peer in want.peers.values() for network in peer.allowed_ips}
    for key, peer in have.peers.items():
        if key not in want.peers or peer.allowed_ips != want.peers[key].allowed_ips:
            for network in peer.allowed_ips - wanted:
                address, _, length = network.partition("/")
                if length == ("128" if ":" in address else "32"):
                    yield address


def _plan_interface(have: Interface | None, want: Interface | None) -> Plan:
    if want is None:
        return Plan((actions.DeleteInterface(),) if have else (), ())
    if have == want:
        return Plan((), ())
    extra = _sorted(have.addresses - want.addresses) if have else ()
    # Without its extra addresses it may be what is wanted already.
    same = have is not None and replace(have, addresses=have.addresses - set(extra)) == want
    return Plan(
        removals=(actions.RemoveAddresses(extra),) if extra else (),
        additions=() if same else (actions.ConfigureInterface(want, create=have is None),),
    )


def _plan_files(have: Files, want: Files) -> Plan:
    gone = _sorted(have.policies.keys() - want.policies.keys())
    revoked = {client: revoke_policy(have.policies[client]) for client in gone}
    revoked = {client: policy for client, policy in revoked.items() if policy != have.policies[client]}
    changed = {c: p for c, p in want.policies.items() if c in have.policies and have.policies[c] != p}
    new = {c: p for c, p in want.policies.items() if c not in have.policies}
    rerouted = have.routes.items() - want.routes.items()
    # A route that moves to another client is removed first: it must not lead to the old one meanwhile.
    routes_gone = _sorted(name for name, _client in rerouted)
    routes = sorted(want.routes.items() - have.routes.items())
    seats_gone, seats = _sorted(have.seats - want.seats), _sorted(want.seats - have.seats)
    return Plan(
        removals=(
            # A changed policy may take something away, so it goes with the removals.
            *_policy_batches(changed),
            *((actions.WriteRoster(want.roster),) if have.roster not in (None, want.roster) else ()),
            *((actions.RevokePolicies(revoked),) if revoked else ()),
            *((actions.RemoveRoutes(routes_gone),) if routes_gone else ()),
            *((actions.RemoveClients(gone),) if gone else ()),
            *((actions.RemoveSeats(seats_gone),) if seats_gone else ()),
        ),
        additions=(
            *((actions.WriteSeats(seats),) if seats else ()),
            *((actions.WriteRoster(want.roster),) if have.roster is None and want.roster is not None else ()),
            *_policy_batches(new),
            *(actions.WriteRoutes(dict(batch)) for batch in _batches(routes, ROUTES_PER_ACTION)),
        ),
    )


def _policy_batches(policies: Mapping[str, bytes]) -> Iterator[Action]:
    for batch in _batches(sorted(policies.items()), POLICIES_PER_ACTION):
        yield actions.WritePolicies(dict(batch))


def revoke_policy(data: bytes) -> bytes:
    """Return a policy with `revoked` set; what is no policy comes back as it is."""
    try:
        policy = Policy.parse_canonical(data)
    except RefusedError:
        return data
    return policy.model_copy(update={"revoked": True}).canonical_bytes()


def _plan_served(have: Served, want: Served) -> Plan:
    removals: list[Action] = []
    additions: list[Action] = []
    gone, new = _sorted(have.notary - want.notary), _sorted(want.notary - have.notary)
    if gone:
        kept = {c: want.accounts.get(c, _UNKNOWN) for c in _sorted(have.notary & want.notary)}
        removals.append(actions.ServeNotary(kept, removed=gone))
    if new:
        wanted = {c: want.accounts.get(c, _UNKNOWN) for c in _sorted(want.notary)}
        additions.append(actions.ServeNotary(wanted, added=new))
    gone, new = _sorted(have.cells - want.cells), _sorted(want.cells - have.cells)
    if gone:
        removals.append(actions.ServeCells(_sorted(have.cells & want.cells), removed=gone))
    if new:
        additions.append(actions.ServeCells(_sorted(want.cells), added=new))
    return Plan(tuple(removals), tuple(additions))


def _plan_web(have: Web, want: Web) -> Plan:
    if have == want:
        return Plan((), ())
    if want.config is None or want.certificate is None:
        return Plan((actions.StopWeb(),), ())
    return Plan((), (actions.ConfigureWeb(want.config, want.certificate, start=not have.running),))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _sorted(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(items))

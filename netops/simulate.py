"""What a plan leads to, without doing it: the meaning of each action, against which plans are tested. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from netops import actions
from netops.actions import Action
from netops.model import Firewall, Peer, State, Web
from netops.nftables import SETS


def simulate(steps: Iterable[Action], state: State) -> State:
    """Return the state after these actions."""
    for action in steps:
        state = _step(action, state)
    return state


def _step(action: Action, state: State) -> State:  # noqa: PLR0911 - one line for each action, nothing else
    match action:
        case actions.RemovePeers() | actions.SetPeers():
            return replace(state, peers=_peers(action, state.peers))
        case actions.LoadFirewall() | actions.AddElements() | actions.DeleteElements():
            return replace(state, firewall=_firewall(action, state.firewall))
        case actions.EndFlows():
            return state
        case actions.DeleteInterface():
            return replace(state, interface=None, peers={})
        case actions.RemoveAddresses(gone) if state.interface:
            left = state.interface.addresses - set(gone)
            return replace(state, interface=replace(state.interface, addresses=left))
        case actions.ConfigureInterface(interface, create):
            held = state.interface.addresses if state.interface and not create else frozenset()
            return replace(state, interface=replace(interface, addresses=interface.addresses | held))
        case actions.ServeNotary(clients):
            return replace(state, served=replace(state.served, notary=frozenset(clients)))
        case actions.ServeCells(cells):
            return replace(state, served=replace(state.served, cells=frozenset(cells)))
        case actions.ConfigureWeb(config, certificate):
            return replace(state, web=Web(True, config, certificate))
        case actions.StopWeb():
            return replace(state, web=Web())
        case _:
            return _files(action, state)


def _peers(action: actions.RemovePeers | actions.SetPeers, have: Mapping[str, Peer]) -> dict[str, Peer]:
    peers = dict(have)
    if isinstance(action, actions.RemovePeers):
        for key in action.public_keys:
            peers.pop(key, None)
        return peers
    owner = {network: key for key, peer in peers.items() for network in peer.allowed_ips}
    for peer in action.peers:
        before = peers.get(peer.public_key)
        for network in before.allowed_ips if before else ():
            owner.pop(network, None)
        # Cryptokey routing: a network that is given to one peer is taken from the peer that had it.
        for network in peer.allowed_ips:
            loser = owner.get(network)
            if loser is not None and loser != peer.public_key:
                peers[loser] = replace(peers[loser], allowed_ips=peers[loser].allowed_ips - {network})
            owner[network] = peer.public_key
        # `wg addconf` without PresharedKey leaves the old one in place.
        kept = before.preshared_key if before else None
        peers[peer.public_key] = replace(peer, preshared_key=peer.preshared_key or kept)
    return peers


def _firewall(
    action: actions.LoadFirewall | actions.AddElements | actions.DeleteElements, have: Firewall
) -> Firewall:
    named = {name: frozenset(getattr(action, name)) for name in SETS}
    if isinstance(action, actions.LoadFirewall):
        return Firewall(action.rules, **named)
    held = {name: getattr(have, name) for name in SETS}
    if isinstance(action, actions.AddElements):
        return replace(have, **{name: held[name] | named[name] for name in SETS})
    return replace(have, **{name: held[name] - named[name] for name in SETS})


def _files(action: Action, state: State) -> State:
    files = state.files
    match action:
        case actions.WritePolicies(policies) | actions.RevokePolicies(policies):
            files = replace(files, policies={**files.policies, **policies})
        case actions.RemoveClients(clients):
            files = replace(files, policies={c: p for c, p in files.policies.items() if c not in clients})
        case actions.WriteRoutes(routes):
            files = replace(files, routes={**files.routes, **routes})
        case actions.RemoveRoutes(names):
            files = replace(files, routes={n: c for n, c in files.routes.items() if n not in names})
        case actions.WriteRoster(roster):
            files = replace(files, roster=roster)
        case actions.WriteSeats(names):
            files = replace(files, seats=files.seats | set(names))
        case actions.RemoveSeats(names):
            files = replace(files, seats=files.seats - set(names))
        case _:
            raise AssertionError("an action without a meaning")
    return replace(state, files=files)

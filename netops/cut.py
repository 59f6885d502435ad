"""What a revocation does to a node at once, before any bundle follows. Pure.

Order: peer, firewall element, flows, policy (the cell ends the requests), routes, and for whole clients the notary and
their cell. Folders of clients stay until the next pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from appliance.core.bundle import Bundle, Device, Revocation
from appliance.core.policy import render_policy
from netops import actions
from netops.actions import Action
from netops.desired import prune, render_account
from netops.mailbox.roster import render_roster
from netops.model import Peer, route4, route6, route6_prefix
from netops.plan import revoke_policy


def plan_cut(
    revocation: Revocation, bundle: Bundle | None, peers: Mapping[str, Peer], policies: Mapping[str, bytes]
) -> tuple[Action, ...]:
    """Return what cuts these devices and clients off.

    Args:
        revocation: Verified.
        bundle: What is in force, None if there is nothing.
        peers: What the kernel holds: an address may be in force before its bundle is accepted.
        policies: Client to the content of its policy.json, of the clients that are revoked as a whole.
    """
    gone = _devices(revocation, bundle)
    keys = {device.public_key for device in gone} | set(revocation.public_keys)
    present = tuple(sorted(keys & peers.keys()))
    addresses = {address for device in gone for address in (device.address4, device.address6)}
    addresses |= {network.rpartition("/")[0] for key in present for network in peers[key].allowed_ips}
    guests = [guest for guest in (bundle.guests if bundle else ()) if guest.public_key in keys]
    addresses |= {address for guest in guests for address in (guest.address4, guest.address6)}
    steps: list[Action] = [actions.RemovePeers(present)] if present else []
    if addresses:
        four = tuple(sorted(address for address in addresses if ":" not in address))
        six = tuple(sorted(address for address in addresses if ":" in address))
        guests4, guests6 = (
            tuple(sorted(getattr(g, name) for g in guests)) for name in ("address4", "address6")
        )
        steps += [actions.DeleteElements(four, six, guests4, guests6), actions.EndFlows((*four, *six))]
    if bundle is not None:
        steps += _files(revocation, bundle, gone, policies)
    return tuple(steps)


def _devices(revocation: Revocation, bundle: Bundle | None) -> list[Device]:
    return [
        device
        for client in (bundle.clients if bundle else ())
        for device in client.devices
        if client.name in revocation.clients or device.public_key in revocation.public_keys
    ]


def _files(
    revocation: Revocation, bundle: Bundle, gone: list[Device], policies: Mapping[str, bytes]
) -> Iterator[Action]:
    keys = {device.public_key for device in gone} | set(revocation.public_keys)
    left = prune(bundle, keys, set(revocation.clients))
    touched = {client.name for client in bundle.clients if any(d.public_key in keys for d in client.devices)}
    changed = {c.name: render_policy(left, c).canonical_bytes() for c in left.clients if c.name in touched}
    if changed:
        yield actions.WritePolicies(changed)
    if policies:
        yield actions.RevokePolicies({client: revoke_policy(data) for client, data in policies.items()})
    prefix = route6_prefix(bundle.tunnel.network6)
    if left.guests != bundle.guests:
        yield actions.WriteRoster(render_roster(left.guests))
    names = ((route4(device.address4), route6(device.address6, prefix, "clients")) for device in gone)
    routes = tuple(name for pair in names for name in pair)
    if routes:
        yield actions.RemoveRoutes(routes)
    if revocation.clients:
        yield actions.ServeNotary({client.name: render_account(client) for client in left.clients})
        yield actions.ServeCells(tuple(client.name for client in left.clients))

"""What a grant does to a node at once, before the bundle with it follows. Pure.

Order as in every addition: policy, notary, cells, routes, firewall element, and the peer last: nothing is reachable before
all of it is there.
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.core.bundle import Bundle, Client
from appliance.core.policy import render_policy
from netops import actions
from netops.actions import Action
from netops.desired import render_account, render_peer, render_routes


def plan_grant(before: Bundle, after: Bundle) -> tuple[Action, ...]:
    """Return what leads from one bundle to another that only has devices or clients more (`netops.desired.extend`)."""
    known = {device.public_key for client in before.clients for device in client.devices}
    served = {client.name for client in before.clients}
    added = tuple(_with_new_devices(after, known, served))
    return tuple(_steps(after, added, tuple(client.name for client in added if client.name not in served)))


def _with_new_devices(after: Bundle, known: set[str], served: set[str]) -> Iterator[Client]:
    for client in after.clients:
        devices = tuple(device for device in client.devices if device.public_key not in known)
        if devices or client.name not in served:
            yield client.model_copy(update={"devices": devices})


def _steps(after: Bundle, added: tuple[Client, ...], new: tuple[str, ...]) -> Iterator[Action]:
    touched = {client.name for client in added}
    policies = {c.name: render_policy(after, c).canonical_bytes() for c in after.clients if c.name in touched}
    if policies:
        yield actions.WritePolicies(policies)
    if new:
        yield actions.ServeNotary({c.name: render_account(c) for c in after.clients}, added=new)
        yield actions.ServeCells(tuple(client.name for client in after.clients), added=new)
    devices = [device for client in added for device in client.devices]
    if devices:
        yield actions.WriteRoutes(render_routes(after.model_copy(update={"clients": added})))
        yield actions.AddElements(
            tuple(sorted(device.address4 for device in devices)),
            tuple(sorted(device.address6 for device in devices)),
        )
        yield actions.SetPeers(tuple(render_peer(device) for device in devices))

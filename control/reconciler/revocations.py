"""What a node still lets in, and what of it must be cut off now."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from django.db.models import Q

from appliance.core.bundle import Accepted, Bundle, Revocation
from control.clients.models import Client, ClientState, Device, DeviceState
from control.fleet.models import Node


@dataclass(frozen=True)
class CutOff:
    """Who may not be served any more, according to the database."""

    public_keys: frozenset[str]
    clients: frozenset[str]


@dataclass
class Deployed:
    """What the node lets in as far as this process knows: the last accepted bundle less what was revoked since.

    After a restart it is empty until the first pass, which renders a bundle without what was revoked meanwhile.
    Shared by the two threads of a worker.
    """

    epoch: int = 0
    generation: int = 0
    drained: bool = False
    public_keys: set[str] = field(default_factory=set)
    clients: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, bundle: Bundle) -> None:
        """Before a bundle is sent: from now on its peers may be let in, and revocations must name its generation."""
        with self.lock:
            self.epoch, self.generation = bundle.epoch, bundle.generation
            self.public_keys |= _keys(bundle)
            self.clients |= {client.name for client in bundle.clients}

    def note_accepted(self, bundle: Bundle) -> None:
        """After the node accepted it: exactly its peers are let in."""
        with self.lock:
            self.drained = bundle.drain
            self.public_keys = _keys(bundle)
            self.clients = {client.name for client in bundle.clients}

    def is_drained(self, accepted: Accepted | None) -> bool:
        """Whether what the node accepted is a bundle that drains it, and this process sent it: then it knows whom to cut off."""
        with self.lock:
            sent = self.epoch, self.generation
            return self.drained and accepted is not None and sent == (accepted.epoch, accepted.generation)

    def note_revoked(self, revocation: Revocation) -> None:
        """After the node applied a revocation, unless a bundle was sent since."""
        with self.lock:
            if self.generation == revocation.generation:
                self.public_keys -= set(revocation.public_keys)
                self.clients -= set(revocation.clients)

    def plan_revocation(self, node: str, cut_off: CutOff) -> Revocation | None:
        """Return what cuts off everyone who is let in and may not be, or None. Pure but for the lock."""
        with self.lock:
            keys, clients = self.public_keys & cut_off.public_keys, self.clients & cut_off.clients
            if not keys and not clients:
                return None
            return Revocation(
                node=node,
                epoch=self.epoch,
                generation=self.generation,
                public_keys=tuple(sorted(keys)),
                clients=tuple(sorted(clients)),
            )


def observe_cut_off(node: Node) -> CutOff:
    """Read who may not be served on this node."""
    outside = ~Q(state=DeviceState.ACTIVE) | ~Q(client__state=ClientState.ACTIVE)
    devices = Device.objects.filter(outside, client__home=node).values_list("public_key", flat=True)
    clients = Client.objects.filter(home=node).exclude(state=ClientState.ACTIVE)
    return CutOff(frozenset(devices), frozenset(clients.values_list("name", flat=True)))


def _keys(bundle: Bundle) -> set[str]:
    return {device.public_key for client in bundle.clients for device in client.devices}

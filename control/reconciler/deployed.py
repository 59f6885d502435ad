"""What a node lets in as far as control knows: the last accepted bundle, with what was granted and without what was revoked since."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from appliance.core.bundle import Accepted, Bundle, Client, Grant, Revocation
from control.reconciler.revocations import CutOff


@dataclass
class Deployed:
    """Who is let in at one node.

    After a restart it is empty until the first pass, which renders a bundle of what is right by then. Shared by the
    threads of a worker.
    """

    epoch: int = 0
    generation: int = 0
    drained: bool = False
    public_keys: set[str] = field(default_factory=set)
    clients: set[str] = field(default_factory=set)
    granted: list[Grant] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, bundle: Bundle) -> None:
        """Before a bundle is sent: from now on its peers may be let in, and its generation is to be named."""
        with self.lock:
            self.epoch, self.generation = bundle.epoch, bundle.generation
            self._let_in(bundle.clients)
            self.public_keys |= {guest.public_key for guest in bundle.guests}

    def note_accepted(self, bundle: Bundle) -> None:
        """After the node accepted it: exactly its peers are let in, and who was granted since it was made."""
        with self.lock:
            self.drained = bundle.drain
            self.public_keys = {guest.public_key for guest in bundle.guests}
            self.clients = set()
            self._let_in(bundle.clients)
            numbers = bundle.epoch, bundle.generation
            self.granted = [grant for grant in self.granted if (grant.epoch, grant.generation) >= numbers]
            for grant in self.granted:
                self._let_in(grant.clients)

    def is_drained(self, accepted: Accepted | None) -> bool:
        """Whether what the node accepted is a bundle that drains it, and this process sent it: then it knows whom to cut off."""
        with self.lock:
            sent = self.epoch, self.generation
            return self.drained and accepted is not None and sent == (accepted.epoch, accepted.generation)

    def note_revoked(self, revocation: Revocation) -> None:
        """After the node applied a revocation, unless a bundle was sent since."""
        with self.lock:
            left = (_without(grant, revocation) for grant in self.granted)
            self.granted = [grant for grant in left if grant.clients]
            if self.generation == revocation.generation:
                self.public_keys -= set(revocation.public_keys)
                self.clients -= set(revocation.clients)

    def note_granted(self, grant: Grant) -> None:
        """Before a grant is sent: from now on its devices may be let in."""
        with self.lock:
            self.granted.append(grant)
            self._let_in(grant.clients)

    def known_keys(self) -> frozenset[str]:
        """Return the public keys of the devices that may be let in."""
        with self.lock:
            return frozenset(self.public_keys)

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

    def number_grant(self, node: str, clients: tuple[Client, ...]) -> Grant | None:
        """Return what lets these devices in, or None where no bundle was sent that it could add to."""
        with self.lock:
            if not clients or not self.generation:
                return None
            return Grant(node=node, epoch=self.epoch, generation=self.generation, clients=clients)

    def _let_in(self, clients: tuple[Client, ...]) -> None:
        self.public_keys |= {device.public_key for client in clients for device in client.devices}
        self.clients |= {client.name for client in clients}


def _without(grant: Grant, revocation: Revocation) -> Grant:
    """Return a grant less what a later revocation took back."""
    kept = (client for client in grant.clients if client.name not in revocation.clients)
    left = (
        client.model_copy(
            update={"devices": tuple(d for d in client.devices if d.public_key not in revocation.public_keys)}
        )
        for client in kept
    )
    return grant.model_copy(update={"clients": tuple(client for client in left if client.devices)})

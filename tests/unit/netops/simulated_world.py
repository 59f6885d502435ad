"""A world that carries actions out by their meaning (netops.simulate), for tests of the agent without root.

It can be told to fail at an action, or to call something just before one: a revocation in the middle of a pass.
"""

from types import SimpleNamespace

from appliance.core.errors import UnavailableError
from netops.model import Firewall, State
from netops.simulate import simulate
from netops.wireguard import PeerStatus


class SimulatedWorld:
    """Has what `Passes` uses of `netops.world.World`."""

    def __init__(self):
        self.state = State(Firewall(None))
        self.done = []
        self.fail_at = None
        self.before = {}
        self.drop = None
        self.tunnel = SimpleNamespace(observe=self._tunnel)
        self.firewall = SimpleNamespace(
            observe=lambda: (self.state.firewall.rules is not None, self.state.firewall)
        )
        self.web = SimpleNamespace(pid=lambda: None)
        self.handshakes = {}
        self.cells = SimpleNamespace(observe=lambda: self.state.served.cells)
        self.files = SimpleNamespace(policies=self._policies, letters=list)

    def observe(self):
        return self.state

    def apply(self, action):
        hook = self.before.pop(type(action), None)
        if hook:
            hook()
        if self.fail_at is type(action):
            raise UnavailableError("told to fail by the test")
        self.done.append(action)
        if self.drop is not type(action):
            self.state = simulate([action], self.state)

    def _tunnel(self):
        peers = self.state.peers.items()
        return SimpleNamespace(
            kind="kernel" if self.state.interface else None,
            interface=self.state.interface,
            peers=tuple(PeerStatus(peer, self.handshakes.get(key, 0)) for key, peer in peers),
        )

    def _policies(self, clients):
        return {c: self.state.files.policies[c] for c in clients if self.state.files.policies.get(c)}

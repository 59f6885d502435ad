"""The agent as a process: puts its parts together, closes the node, serves, and takes up the stored bundle."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

from appliance.core.errors import ApplianceError, HostError
from appliance.core.node import NodePaths, NodeSettings
from netops.agent.identity import Identity
from netops.agent.memory import Memory, Signed
from netops.agent.models import ModelStore
from netops.agent.operations import Operations
from netops.agent.passes import Passes
from netops.agent.server import Server, log
from netops.world import World

RELAY_USER = "appliance-relay"
RESUME_PAUSE_S = 2.0  # the notary and the launcher may start after us
EXPIRY_PERIOD_S = 10.0  # whoever has come to an end is cut off within this; the cell knows the time to the tenth of a second
HASH_PAUSE_S = 30.0  # between two looks whether every model file is noted as hashed; a look without work is a few stat(2)


@dataclass(frozen=True)
class Agent:
    """An agent that is ready to serve."""

    server: Server
    passes: Passes
    models: ModelStore
    stored: Signed | None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. WireGuard and NGINX go on: serving does not depend on the agent."""
        stopping = threading.Event()

        def stop(_signal: int, _frame: object) -> None:
            stopping.set()
            self.server.close()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        if self.stored is not None:
            threading.Thread(target=self._resume, args=(self.stored, stopping), daemon=True).start()
        threading.Thread(target=self._expire, args=(stopping,), daemon=True).start()
        threading.Thread(target=self._hash_models, args=(stopping,), daemon=True).start()
        self.server.serve()

    def _expire(self, stopping: threading.Event) -> None:
        """Cut off whoever has come to an end, whether control is there or not."""
        while not stopping.wait(EXPIRY_PERIOD_S):
            try:
                if self.passes.expire():
                    log("expire", "done")
            except ApplianceError as error:
                log("expire", error.code)
            except OSError:
                log("expire", "error")

    def _hash_models(self, stopping: threading.Event) -> None:
        """Hash what was not hashed since the boot. A cell that starts meanwhile hashes its own file."""
        while not stopping.is_set():
            try:
                for _ in self.models.hash_anew(stopping.is_set):
                    log("model", "pin_mismatch")
            except OSError:
                log("model", "host")
            stopping.wait(HASH_PAUSE_S)

    def _resume(self, signed: Signed, stopping: threading.Event) -> None:
        """Apply the stored bundle, again and again until that works or a newer one came."""
        while not stopping.is_set():
            try:
                self.passes.apply(signed)
            except ApplianceError as error:
                log("resume", error.code)
                if error.code == "bundle_refused":  # control has sent a newer one meanwhile
                    return
            else:
                log("resume", "done")
                return
            stopping.wait(RESUME_PAUSE_S)


def start_agent(settings: NodeSettings, paths: NodePaths, relay_user: str = RELAY_USER) -> Agent:
    """Close the node, then be ready to serve.

    Raises:
        HostError: If we are not root, a tool is missing, or what the agent remembers is damaged.
    """
    if os.geteuid() != 0:
        raise HostError("the agent needs root", hint="it is started by systemd, or with sudo")
    os.umask(0o077)
    world = World(settings, paths)
    world.files.prepare()
    memory = Memory(paths.state)
    models = ModelStore(paths.models)
    models.clean()
    identity = Identity(paths.keys, settings.node)
    passes = Passes(settings, paths, world=world, memory=memory, models=models, identity=identity)
    passes.close()
    stored = _recall(passes)
    operations = Operations(
        settings, paths, world=world, memory=memory, models=models, identity=identity, passes=passes
    )
    return Agent(Server(paths.agent_socket, operations, relay_user), passes, models, stored)


def _recall(passes: Passes) -> Signed | None:
    try:
        return passes.recall()
    except ApplianceError as error:
        # Not fatal: control can send a bundle that this node accepts.
        log("recall", error.code)
        return None

"""A pass: make the node what a bundle says; and the revocation, which does not wait for one.

    1. verify: signature, node, order, consistency, model files, certificate: nothing is changed if any of it fails
    2. observe, plan
    3. removals, which are remembered first and never rolled back
    4. additions
    5. observe again: the plan must be empty now
    6. remember the bundle as accepted
    on failure: the last good bundle again, without what was removed

One pass runs at a time. A revocation takes the world between two actions of a pass, and the pass plans anew: a plan
made before a revocation is never carried on after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from appliance.core.bundle import Accepted, Bundle, Revocation, verify_bundle, verify_revocation
from appliance.core.epoch import verify_statement
from appliance.core.errors import ApplianceError, HostError
from appliance.core.node import NodePaths, NodeSettings
from netops import actions
from netops.agent.identity import Identity
from netops.agent.memory import Memory, Removed, Signed, difference
from netops.agent.models import ModelStore
from netops.cut import plan_cut
from netops.desired import prune, render_closed, render_state
from netops.model import State
from netops.plan import Plan, plan
from netops.world import World

# A revocation in the middle of a pass makes it plan again; more than this many in one pass is not an operator.
MAX_PLANS = 100
QUOTED_LINES = 3
SERVICES = (actions.ServeNotary, actions.ServeCells, actions.ConfigureWeb, actions.StopWeb)


@dataclass(frozen=True)
class Applied:
    """A pass that succeeded: what was accepted, what was done, and how long it took."""

    accepted: Accepted
    lines: list[str]
    milliseconds: int


@dataclass(frozen=True)
class Revoked:
    """A revocation that succeeded: public keys that were peers, clients that were served, and how long it took."""

    removed: list[str]
    ended: list[str]
    milliseconds: int


class Passes:
    """Applies bundles and revocations to one world."""

    def __init__(
        self,
        settings: NodeSettings,
        paths: NodePaths,
        *,
        world: World,
        memory: Memory,
        models: ModelStore,
        identity: Identity,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._world = world
        self._memory = memory
        self._models = models
        self._identity = identity
        self._pass = threading.Lock()
        # Kernel tables and files are one lock, services another: the launcher may take 3 s to end a cell, and a
        # revocation must not wait for that before it removes a peer.
        self._tables = threading.Lock()
        self._services = threading.Lock()
        # The last bundle that was rendered, the mark of the memory then, and the result: half a second of 10,000
        # devices that the usual pass, which finds nothing to do, need not spend.
        self._rendered: tuple[Bundle, int, State] | None = None

    def close(self) -> None:
        """Close the node before anything else happens, unless a firewall of an earlier agent serves a bundle."""
        loaded, firewall = self._world.firewall.observe()
        closed = render_closed(self._settings).firewall.rules
        if closed is not None and (
            not loaded or (self._memory.accepted is None and firewall.rules != closed)
        ):
            self._world.apply(actions.LoadFirewall(closed, (), ()))

    def recall(self) -> Signed | None:
        """Read the stored bundle, None on a fresh node.

        Raises:
            BundleError: If it does not verify, for example since node.json names another bundle key now.
        """
        signed = self._memory.stored()
        if signed is not None:
            self._memory.recall(self._verify_signed(signed), signed)
        return signed

    def plan(self, signed: Signed) -> Plan:
        """Return what `apply` would do with this bundle."""
        return plan(self._world.observe(), self._want(self._verify(signed)))

    def apply(self, signed: Signed) -> Applied:
        """Make the node what the bundle says.

        Raises:
            BundleError, PinError: If it is refused; nothing was changed.
            ApplianceError: If it failed; the last good state is back, but for what was removed.
        """
        with self._pass:
            start = time.monotonic()
            bundle = self._verify(signed)
            previous = self._memory.bundle
            if previous is not None:
                self._memory.remove(difference(previous, bundle))
                self._memory.save()
            try:
                lines = self._converge(bundle)
            except Exception:
                self._restore(previous)
                raise
            accepted = self._memory.accept(bundle, signed)
            return Applied(accepted, lines, _milliseconds_since(start))

    def raise_epoch(self, signed: Signed) -> int:
        """Go on in a higher epoch, by word of the restore key; return it. What is in force stays so until a bundle of it comes.

        Raises:
            BundleError: If it is refused; nothing was changed.
        """
        with self._pass:
            statement = verify_statement(
                _bytes(signed.text),
                signed.signature,
                restore_key=self._settings.restore_key,
                bundle_key=self._settings.bundle_key,
                epoch=self._memory.epoch,
            )
            self._memory.raise_epoch(statement.epoch)
        return statement.epoch

    def revoke(self, signed: Signed) -> Revoked:
        """Cut devices and clients off now.

        Raises:
            BundleError: If it is refused; nothing was changed.
            ApplianceError: If a service could not be told; every other step was taken all the same.
        """
        start = time.monotonic()
        revocation = verify_revocation(
            _bytes(signed.text),
            signed.signature,
            public_key=self._settings.bundle_key,
            node=self._settings.node,
            accepted=self._memory.accepted,
        )
        before = self._bundle_in_force()
        # Before the lock: whatever a pass does from now on, it does without them.
        self._memory.remove(_removal(revocation))
        removed, ended, failures = self._cut(revocation, before)
        self._memory.save()
        if failures:
            raise failures[0]
        return Revoked(removed, ended, _milliseconds_since(start))

    def _cut(
        self, revocation: Revocation, bundle: Bundle | None
    ) -> tuple[list[str], list[str], list[ApplianceError]]:
        named = set(revocation.clients)
        removed: list[str] = []
        failures: list[ApplianceError] = []
        with self._tables:
            peers = {status.peer.public_key: status.peer for status in self._world.tunnel.observe().peers}
            ended = sorted(self._world.cells.observe() & named) if named else []
            steps = plan_cut(revocation, bundle, peers, self._world.files.policies(named))
            self._attempt((step for step in steps if not isinstance(step, SERVICES)), failures)
        for step in steps:
            removed += step.public_keys if isinstance(step, actions.RemovePeers) else ()
        with self._services:
            self._attempt((step for step in steps if isinstance(step, SERVICES)), failures)
        return removed, ended, failures

    def _attempt(self, steps: Iterable[actions.Action], failures: list[ApplianceError]) -> None:
        """Do each step although another failed: a launcher that hangs must not keep a flow open."""
        for step in steps:
            try:
                self._world.apply(step)
            except ApplianceError as failure:
                failures.append(failure)

    def _bundle_in_force(self) -> Bundle | None:
        bundle = self._memory.bundle
        return prune(bundle, *self._memory.removed_from(bundle)) if bundle else None

    def _verify_signed(self, signed: Signed) -> Bundle:
        return verify_bundle(
            _bytes(signed.text),
            signed.signature,
            public_key=self._settings.bundle_key,
            node=self._settings.node,
            accepted=self._memory.accepted,
            raised=self._memory.raised,
        )

    def _verify(self, signed: Signed) -> Bundle:
        """Check everything about a bundle that can be checked without changing anything."""
        bundle = self._memory.verified(signed) or self._verify_signed(signed)
        self._models.verify_pinned(bundle)
        self._identity.verify_certificate(bundle)
        self._want(bundle)  # refuses addresses that it cannot route
        return bundle

    def _want(self, bundle: Bundle | None) -> State:
        if bundle is None:
            return render_closed(self._settings)
        mark = self._memory.mark
        known = self._rendered
        if known is not None and known[0] is bundle and known[1] == mark:
            return known[2]
        left = prune(bundle, *self._memory.removed_from(bundle))
        want = render_state(left, self._settings, self._paths, self._identity.wireguard_public_key())
        self._rendered = (bundle, mark, want)
        return want

    def _converge(self, bundle: Bundle | None) -> list[str]:
        """Make the world what the bundle says, and read back that it is."""
        lines: list[str] = []
        for _ in range(MAX_PLANS):
            mark = self._memory.mark
            want = self._want(bundle)
            steps = plan(self._world.observe(), want)
            if not self._carry_out(steps, want, mark, lines):
                continue
            if not steps:
                return lines
            left = plan(self._world.observe(), want).lines()
            if mark != self._memory.mark:
                continue
            if left:
                quoted = "; ".join(left[:QUOTED_LINES])
                raise HostError(f"after applying, {len(left)} changes are left: {quoted}")
            return lines
        raise HostError("revocations came faster than a pass could end", hint="apply again")

    def _carry_out(self, steps: Plan, want: State, mark: int, lines: list[str]) -> bool:
        """Do the actions of a plan; return False as soon as a revocation has made it stale."""
        # The services get the whole set on each pass: one that was restarted has forgotten it, and its sockets in
        # the file system do not show that.
        pseudonyms = {client: want.served.pseudonyms[client] for client in sorted(want.served.notary)}
        renewals: tuple[actions.Action, ...] = (
            actions.ServeNotary(pseudonyms),
            actions.ServeCells(tuple(sorted(want.served.cells))),
        )
        for action in (*steps, *(renewals if pseudonyms else ())):
            with self._services if isinstance(action, SERVICES) else self._tables:
                if self._memory.mark != mark:
                    return False
                self._world.apply(action)
            lines.extend(action.lines())
        return True

    def _restore(self, previous: Bundle | None) -> None:
        """Go back to the last good state. The first failure is the one to report, so another is not raised."""
        try:
            self._converge(previous)
        except (ApplianceError, OSError):
            return


def _removal(revocation: Revocation) -> Removed:
    return Removed(
        epoch=revocation.epoch,
        generation=revocation.generation,
        public_keys=revocation.public_keys,
        clients=revocation.clients,
    )


def _bytes(text: str) -> bytes:
    # JSON can carry lone surrogates; the signature over them then fails, which is the right answer.
    return text.encode("utf-8", "surrogatepass")


def _milliseconds_since(start: float) -> int:
    return int((time.monotonic() - start) * 1000)

"""A pass: make the node what a bundle says; and the revocation and the grant, which do not wait for a bundle.

What a bundle says has an end for some: `expire` cuts them off then, as a revocation would, whether control is there or not.

    1. verify: signature, node, order, consistency, model files, certificate: nothing is changed if any of it fails
    2. observe, plan
    3. removals, which are remembered first and never rolled back
    4. additions
    5. observe again: the plan must be empty now
    6. remember the bundle as accepted
    on failure: the last good bundle again, without what was removed

One pass runs at a time. A revocation takes the world between two actions of a pass, and the pass plans anew: a plan
made before a revocation is never carried on after it. A grant takes part in the pass that runs, and else makes a small one of
its own: it can only add, so it may wait where a revocation may not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.core.bundle import (
    Accepted,
    Bundle,
    Revocation,
    verify_bundle,
    verify_consistency,
    verify_grant,
    verify_revocation,
)
from appliance.core.epoch import verify_statement
from appliance.core.errors import ApplianceError, BundleError, HostError
from appliance.core.node import NodePaths, NodeSettings
from netops import actions
from netops.agent.identity import Identity
from netops.agent.memory import Memory, Removed, Signed, difference
from netops.agent.models import ModelStore
from netops.cut import plan_cut
from netops.desired import extend, prune, render_closed, render_state
from netops.expiry import Ended, find_ended
from netops.grant import plan_grant
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


@dataclass(frozen=True)
class Granted:
    """A grant that succeeded: the public keys that are peers by it, and how long it took."""

    added: list[str]
    milliseconds: int


class Passes:
    """Applies bundles, revocations, grants and ends to one world.

    Args:
        settings, paths: The node's.
        world: What is changed.
        memory, models, identity: The agent's.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        settings: NodeSettings,
        paths: NodePaths,
        *,
        world: World,
        memory: Memory,
        models: ModelStore,
        identity: Identity,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._world = world
        self._memory = memory
        self._models = models
        self._identity = identity
        self._clock = clock
        self._settled = True  # nobody was cut off since the last whole pass
        self._pass = threading.Lock()
        # Kernel tables and files are one lock, services another: the launcher may take 3 s to end a cell, and a
        # revocation must not wait for that before it removes a peer.
        self._tables = threading.Lock()
        self._services = threading.Lock()
        # The last bundle that was rendered, the mark of the memory then, what had ended, and the result: half a second of
        # 10,000 devices that the usual pass, which finds nothing to do, need not spend.
        self._rendered: tuple[Bundle, int, Ended, State] | None = None

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
                self._memory.remove(difference(self._granted(previous), self._granted(bundle)))
                self._memory.save()
            self._remember_ended(bundle)
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
        removed, ended = self._cut_off(revocation)
        return Revoked(removed, ended, _milliseconds_since(start))

    def expire(self) -> bool:
        """Cut off whoever has come to an end, then make a whole pass; return whether there was anything to do.

        Raises:
            ApplianceError: If a step failed. Every other was taken all the same, and the next call makes the pass again.
        """
        bundle = self._bundle_in_force()
        if bundle is None:
            return False
        keys, clients = find_ended(bundle, self._clock())
        if not keys and not clients and self._settled:
            return False
        self._settled = False
        if keys or clients:
            self._cut_off(
                Revocation(
                    node=bundle.node,
                    epoch=bundle.epoch,
                    generation=bundle.generation,
                    public_keys=tuple(sorted(keys)),
                    clients=tuple(sorted(clients)),
                )
            )
        with self._pass:
            self._converge(self._memory.bundle)
        self._settled = True
        return True

    def _cut_off(self, revocation: Revocation) -> tuple[list[str], list[str]]:
        """Cut devices and clients off for as long as this bundle is in force; return the peers and clients that were there."""
        before = self._bundle_in_force()
        # Before the lock: whatever a pass does from now on, it does without them.
        self._memory.remove(_removal(revocation))
        removed, ended, failures = self._cut(revocation, before)
        self._memory.save()
        if failures:
            raise failures[0]
        return removed, ended

    def _remember_ended(self, bundle: Bundle) -> None:
        """Remember who has come to an end, so that a clock which is set back does not let them in again."""
        keys, clients = find_ended(self._in_force(bundle), self._clock())
        if keys or clients:
            self._memory.remove(
                Removed(
                    epoch=bundle.epoch,
                    generation=bundle.generation,
                    public_keys=tuple(sorted(keys)),
                    clients=tuple(sorted(clients)),
                )
            )
            self._memory.save()

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

    def grant(self, signed: Signed) -> Granted:
        """Let devices in now.

        Raises:
            BundleError: If it is refused; nothing was changed.
            ApplianceError: If a step failed. It is remembered all the same, and the next pass takes it.
        """
        start = time.monotonic()
        grant = verify_grant(
            _bytes(signed.text),
            signed.signature,
            public_key=self._settings.bundle_key,
            node=self._settings.node,
            accepted=self._memory.accepted,
        )
        with self._pass:
            before = self._bundle_in_force()
            if before is None:
                raise BundleError("no bundle is in force yet", field="generation")
            verify_consistency(extend(before, grant.clients))
            self._memory.grant(grant)
            added = self._let_in(before)
        return Granted(added, _milliseconds_since(start))

    def _let_in(self, before: Bundle) -> list[str]:
        """Carry out what is granted beyond a bundle; a revocation that comes in between makes it plan anew."""
        for _ in range(MAX_PLANS):
            mark = self._memory.mark
            after = self._bundle_in_force() or before
            steps = plan_grant(before, after)
            if self._do(steps, mark, []):
                return [peer.public_key for s in steps if isinstance(s, actions.SetPeers) for peer in s.peers]
        raise HostError("revocations came faster than a grant could end", hint="apply the bundle again")

    def _bundle_in_force(self) -> Bundle | None:
        bundle = self._memory.bundle
        return self._in_force(bundle) if bundle else None

    def _in_force(self, bundle: Bundle) -> Bundle:
        return prune(self._granted(bundle), *self._memory.removed_from(bundle))

    def _granted(self, bundle: Bundle) -> Bundle:
        return extend(bundle, self._memory.granted_to(bundle))

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
        mark, ended = self._memory.mark, find_ended(self._granted(bundle), self._clock())
        known = self._rendered
        if known is not None and known[0] is bundle and known[1:3] == (mark, ended):
            return known[3]
        left = prune(self._in_force(bundle), *ended)
        want = render_state(left, self._settings, self._paths, self._identity.wireguard_public_key())
        self._rendered = (bundle, mark, ended, want)
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
        """Do the actions of a plan; return False as soon as a revocation or a grant has made it stale."""
        # The services get the whole set on each pass: one that was restarted has forgotten it, and its sockets in
        # the file system do not show that.
        accounts = {client: want.served.accounts[client] for client in sorted(want.served.notary)}
        renewals: tuple[actions.Action, ...] = (
            actions.ServeNotary(accounts),
            actions.ServeCells(tuple(sorted(want.served.cells))),
        )
        return self._do((*steps, *(renewals if accounts else ())), mark, lines)

    def _do(self, steps: Iterable[actions.Action], mark: int, lines: list[str]) -> bool:
        for action in steps:
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

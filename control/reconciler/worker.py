"""One node, three threads: passes, and revocations and grants that do not wait for them. A dead node holds up no other."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from django.db import close_old_connections, connections
from django.utils import timezone

from appliance.core.bundle import Bundle, sign_bundle, sign_grant, sign_revocation
from appliance.core.errors import ApplianceError, RefusedError, UnavailableError
from appliance.core.receipt import Keyring
from control.audit.conditions import OF_PASSES, judge_passes, note_conditions
from control.audit.heartbeats import take_heartbeat
from control.backup.epochs import bring_epoch
from control.backup.manifest import Restored
from control.backup.restored import verify_raised
from control.fleet.models import Duty, Node
from control.logs import log_event
from control.pins.progress import note_applied
from control.reconciler.deployed import Deployed
from control.reconciler.generations import number_bundle, record_accepted, verify_not_ahead
from control.reconciler.grants import observe_missing
from control.reconciler.health import pull_health
from control.reconciler.identity import learn_identity, publish_keyring
from control.reconciler.invitations import live_invitations, settle_invitations
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.plans import answer_plan
from control.reconciler.publication import publish_log
from control.reconciler.receipts import pull_receipts
from control.reconciler.revocations import observe_cut_off
from control.reconciler.rows import PresharedKeys, observe_rows
from control.reconciler.uploads import send_missing_models
from provisioning.answers import Letter
from provisioning.node import NodeClient

logger = logging.getLogger(__name__)
FIRST_RETRY_S = 1.0
LONGEST_REST_S = 5.0
LETTERS_S = 1.5  # between two looks into a node's mailbox, while an invitation is open
JITTER = 0.2  # of the interval, so that nodes are not asked all at once
HEALTH_REST_S = 10.0  # a thousand changes in a row are no reason to ask a thousand times how a node is


class NodeWorker:
    """Keeps one node at its desired state.

    Args:
        name: The node's.
        client: Speaks to it.
        keys: The reconciler's.
        keyring: Where the keys that verify receipts are published.
        log: Folder of the log of receipts.
        interval_s: Between two periodic passes, before jitter.
        restored: What a restore left; until the epoch was raised no bundle is sent.
    """

    def __init__(
        self,
        name: str,
        client: NodeClient,
        keys: ReconcilerKeys,
        *,
        keyring: Path,
        log: Path,
        interval_s: float,
        restored: Restored | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._keys = keys
        self._keyring = keyring
        self._log = log
        self._interval_s = interval_s
        self._restored = restored
        self._deployed = Deployed()
        # Those of the last pass, None where no invitation is open.
        self._letters: tuple[Letter, ...] | None = None
        self._preshared_keys = PresharedKeys(keys.seal)
        self._reached = self._converged = False  # in this pass
        self._health_due_at = 0.0
        self._due, self._revoking, self._granting = threading.Event(), threading.Event(), threading.Event()
        self._stopping = threading.Event()
        loops = {
            "pass": self._pass_forever,
            "revoke": partial(self._forever, self._revoking, self.revoke_now),
            "grant": partial(self._forever, self._granting, self.grant_now),
        }
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), name=f"{name}-{kind}", daemon=True)
            for kind, loop in loops.items()
        ]

    def start(self) -> None:
        """Start the threads; the first pass begins at once."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Something changed: revoke and grant now what is due, then make a pass."""
        self._revoking.set()
        self._granting.set()
        self._due.set()

    def stop(self) -> None:
        """Stop after what is being done now; closing the connection ends a wait for the node."""
        self._stopping.set()
        self.wake()
        self._client.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)

    def pass_once(self) -> str:
        """Make one pass; return the code of what went wrong, or an empty text. Never raises."""
        self._reached = self._converged = False
        code = self._guard(self._pass)
        self._guard(lambda: self._note_pass(code))
        return code

    def revoke_now(self) -> str:
        """Send a revocation if one is due; return the code of what went wrong, or an empty text. Never raises."""
        return self._guard(self._revoke)

    def grant_now(self) -> str:
        """Send a grant if one is due; return the code of what went wrong, or an empty text. Never raises."""
        return self._guard(self._grant)

    def _pass(self) -> None:
        client, node = self._client, Node.objects.get(name=self.name)
        client.open()
        identity = client.identity()
        self._reached = True
        learn_identity(node, identity, self._keys.authority)
        keyring = publish_keyring(self._keyring, self._keys.log)
        # A node that refuses its bundle still has health and receipts to tell.
        steps = (
            lambda: self._settle_invitations(node),
            lambda: self._converge(node),
            lambda: self._store_health(node),
            lambda: self._exchange_receipts(node, keyring),
        )
        refusals = [refusal for step in steps if (refusal := _refusal_of(step)) is not None]
        if refusals:
            raise refusals[0]

    def _exchange_receipts(self, node: Node, keyring: Keyring) -> None:
        """Fetch receipts, and bring the log that holds those of before."""
        client = self._client
        pull_receipts(node, client, keyring, take_heartbeat(node, client))
        client.note_admitted(node.receipts_position)
        publish_log(node, client, self._log)

    def _settle_invitations(self, node: Node) -> None:
        """Exchange letters, unless there are none to expect; before the bundle, which takes the answers along."""
        self._letters = None
        if invitations := live_invitations(node):
            letters = self._client.letters()
            settle_invitations(invitations, letters, self._keys.seal)
            self._letters = letters

    def _store_health(self, node: Node) -> None:
        if time.monotonic() >= self._health_due_at:
            pull_health(node, self._client)
            self._health_due_at = time.monotonic() + HEALTH_REST_S

    def _note_pass(self, code: str) -> None:
        """Keep how the pass went, and what that says is wrong."""
        node, now = Node.objects.get(name=self.name), timezone.now()
        node.last_error = code
        if self._reached:
            node.last_seen_at = now
            node.drift_passes = 0 if self._converged else node.drift_passes + 1
        node.save(update_fields=["last_error", "last_seen_at", "drift_passes"])
        note_conditions(node, OF_PASSES, judge_passes(node, now), now)

    def _converge(self, node: Node) -> None:
        client = self._client
        verify_raised(self._restored)
        state = client.state()
        verify_not_ahead(node, state)
        bring_epoch(client, state)
        # Before models are sent or anything is applied: what is shown is what would change now.
        answer_plan(node, client, state, lambda: self._number(node), self._keys.bundle)
        if node.duty != Duty.MAINTENANCE or not self._deployed.is_drained(state.accepted):
            send_missing_models(node, client, state.models)
            self._apply(node)
        self._converged = True

    def _number(self, node: Node) -> Bundle:
        return number_bundle(node, observe_rows(node, self._preshared_keys))

    def _apply(self, node: Node) -> None:
        client, started_at = self._client, time.monotonic()
        bundle = self._number(node)
        text = bundle.canonical_bytes().decode("utf-8")
        signature = sign_bundle(bundle, self._keys.bundle)
        render_ms = int((time.monotonic() - started_at) * 1000)
        self._deployed.note_sent(bundle)
        applied = client.apply(text, signature)
        if applied.accepted.digest != bundle.digest:
            raise RefusedError("the node accepted another bundle than the one sent", field="accepted")
        self._deployed.note_accepted(bundle)
        record_accepted(node, applied.accepted)
        note_applied(node, bundle)
        if applied.actions:
            took = {"actions": len(applied.actions), "render_ms": render_ms, "ms": applied.milliseconds}
            log_event(logger, logging.INFO, "applied", generation=bundle.generation, **took)
        # Who was revoked while the bundle travelled is let in by it again: cut off once more.
        self._revoking.set()

    def _revoke(self) -> None:
        node = Node.objects.get(name=self.name)
        revocation = self._deployed.plan_revocation(node.name, observe_cut_off(node))
        if revocation is None:
            return
        text = revocation.canonical_bytes().decode("utf-8")
        revoked = self._client.revoke(text, sign_revocation(revocation, self._keys.bundle))
        self._deployed.note_revoked(revocation)
        log_event(logger, logging.INFO, "revoked", peers=len(revoked.removed), ms=revoked.milliseconds)

    def _grant(self) -> None:
        node = Node.objects.get(name=self.name)
        if node.duty == Duty.MAINTENANCE:
            return
        clients = observe_missing(node, self._deployed.known_keys(), PresharedKeys(self._keys.seal))
        grant = self._deployed.number_grant(node.name, clients)
        if grant is None:
            return
        self._deployed.note_granted(grant)
        granted = self._client.grant(
            grant.canonical_bytes().decode("utf-8"), sign_grant(grant, self._keys.bundle)
        )
        # Who was revoked while the grant travelled is let in by it: cut off again.
        self._revoking.set()
        log_event(logger, logging.INFO, "granted", peers=len(granted.added), ms=granted.milliseconds)

    def _guard(self, step: Callable[[], None]) -> str:
        try:
            step()
        except UnavailableError as error:
            self._client.close()
            return self._report(error.code)
        except ApplianceError as error:
            return self._report(error.code)
        except Exception:  # the edge of a loop that must go on
            logger.exception("internal")
            self._client.close()
            return self._report("internal")
        return ""

    def _report(self, code: str) -> str:
        log_event(logger, logging.WARNING, code, node=self.name)
        return code

    def _pass_forever(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._stopping.is_set():
            self._due.clear()
            close_old_connections()
            started_at = time.monotonic()
            if self.pass_once() == "":
                wait_s, retry_s = self._interval_s, FIRST_RETRY_S
            else:
                wait_s, retry_s = retry_s, min(retry_s * 2, self._interval_s)
            took_s = time.monotonic() - started_at
            self._rest(wait_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - jitter, no secret
            # A thousand changes in a row are a thousand hints: rest as long as a pass takes, and let them gather.
            self._stopping.wait(min(took_s, LONGEST_REST_S))

    def _rest(self, wait_s: float) -> None:
        """Wait for a hint or the next pass. While an invitation is open somebody may sit before a screen: look for letters."""
        ends_at = time.monotonic() + wait_s
        while (left_s := ends_at - time.monotonic()) > 0:
            if self._due.wait(left_s if self._letters is None else min(left_s, LETTERS_S)):
                return
            if self._letters is not None and self._has_news(self._letters):
                return

    def _has_news(self, letters: tuple[Letter, ...]) -> bool:
        try:
            return self._client.letters() != letters
        except ApplianceError:  # the pass reports it
            return True

    def _forever(self, due: threading.Event, step: Callable[[], str]) -> None:
        while not self._stopping.is_set():
            due.wait()
            due.clear()
            close_old_connections()
            if not self._stopping.is_set():
                step()

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        finally:
            connections.close_all()


def _refusal_of(step: Callable[[], object]) -> ApplianceError | None:
    """Run a step; return its refusal. That the node went away ends the pass, since no other step could succeed."""
    try:
        step()
    except UnavailableError:
        raise
    except ApplianceError as error:
        return error
    return None

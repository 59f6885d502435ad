"""One node, two threads: passes, and revocations that do not wait for them. A dead node holds up no other."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from django.db import close_old_connections, connections
from django.utils import timezone

from appliance.core.bundle import sign_bundle, sign_revocation
from appliance.core.errors import ApplianceError, RefusedError, UnavailableError
from appliance.core.receipt import Keyring
from control.audit.heartbeats import take_heartbeat
from control.backup.epochs import bring_epoch
from control.backup.manifest import Restored
from control.backup.restored import verify_raised
from control.fleet.models import Node
from control.logs import log_event
from control.reconciler.generations import number_bundle, record_accepted, verify_not_ahead
from control.reconciler.identity import learn_identity, publish_keyring
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.publication import publish_log
from control.reconciler.receipts import pull_receipts
from control.reconciler.revocations import Deployed, observe_cut_off
from control.reconciler.rows import PresharedKeys, observe_rows
from control.reconciler.uploads import send_missing_models
from provisioning.node import NodeClient

logger = logging.getLogger(__name__)
FIRST_RETRY_S = 1.0
LONGEST_REST_S = 5.0
JITTER = 0.2  # of the interval, so that nodes are not asked all at once


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
        self._preshared_keys = PresharedKeys(keys.seal)
        self._due, self._urgent = threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), name=f"{name}-{kind}", daemon=True)
            for kind, loop in (("pass", self._pass_forever), ("revoke", self._revoke_forever))
        ]

    def start(self) -> None:
        """Start both threads; the first pass begins at once."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Something changed: revoke now what must be revoked, then make a pass."""
        self._urgent.set()
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
        code = self._guard(self._pass)
        seen = {} if code == UnavailableError.code else {"last_seen_at": timezone.now()}
        Node.objects.filter(name=self.name).update(last_error=code, **seen)
        return code

    def revoke_now(self) -> str:
        """Send a revocation if one is due; return the code of what went wrong, or an empty text. Never raises."""
        return self._guard(self._revoke)

    def _pass(self) -> None:
        client, node = self._client, Node.objects.get(name=self.name)
        client.open()
        learn_identity(node, client.identity(), self._keys.authority)
        keyring = publish_keyring(self._keyring, self._keys.log)
        # A node that refuses its bundle still has health and receipts to tell.
        steps = (
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

    def _store_health(self, node: Node) -> None:
        Node.objects.filter(pk=node.pk).update(health=self._client.health())

    def _converge(self, node: Node) -> None:
        client = self._client
        verify_raised(self._restored)
        state = client.state()
        verify_not_ahead(node, state)
        bring_epoch(client, state)
        send_missing_models(client, state.models)
        bundle = number_bundle(node, observe_rows(node, self._preshared_keys))
        text = bundle.canonical_bytes().decode("utf-8")
        self._deployed.note_sent(bundle)
        applied = client.apply(text, sign_bundle(bundle, self._keys.bundle))
        if applied.accepted.digest != bundle.digest:
            raise RefusedError("the node accepted another bundle than the one sent", field="accepted")
        self._deployed.note_accepted(bundle)
        record_accepted(node, applied.accepted)
        # Who was revoked while the bundle travelled is let in by it again: cut off once more.
        self._urgent.set()

    def _revoke(self) -> None:
        node = Node.objects.get(name=self.name)
        revocation = self._deployed.plan_revocation(node.name, observe_cut_off(node))
        if revocation is None:
            return
        text = revocation.canonical_bytes().decode("utf-8")
        revoked = self._client.revoke(text, sign_revocation(revocation, self._keys.bundle))
        self._deployed.note_revoked(revocation)
        log_event(logger, logging.INFO, "revoked", peers=len(revoked.removed), ms=revoked.milliseconds)

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
            self._due.wait(wait_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - jitter, no secret
            # A thousand changes in a row are a thousand hints: rest as long as a pass takes, and let them gather.
            self._stopping.wait(min(took_s, LONGEST_REST_S))

    def _revoke_forever(self) -> None:
        while not self._stopping.is_set():
            self._urgent.wait()
            self._urgent.clear()
            close_old_connections()
            if not self._stopping.is_set():
                self.revoke_now()

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

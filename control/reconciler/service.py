"""The reconciler: one worker per node, woken by hints and by the clock."""

from __future__ import annotations

import logging
import signal
import threading
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections
from django.utils import timezone

from appliance.core.errors import ApplianceError
from control.audit.heartbeats import watch_silence
from control.audit.retention import Retention
from control.backup.restored import read_restored
from control.config import ControlPaths, WitnessConfig
from control.fleet.models import Node
from control.fleet.peers import forget_peers
from control.keyfiles import publish_log_keys
from control.logs import log_event
from control.reconciler.keys import ReconcilerKeys, read_keys
from control.reconciler.listener import HintListener
from control.reconciler.reach import Connect, connect_by_ssh
from control.reconciler.worker import NodeWorker
from control.transparency.keeper import Keeper
from control.transparency.witnesses import Witnesses
from provisioning.node import NodeClient

logger = logging.getLogger(__name__)
POLL_S = 1.0  # how long a signal may wait, and how late a node that was added without a hint is found
SILENT = timedelta(minutes=5)  # without a heartbeat, before it is an alarm


class Reconciler:
    """Keeps every node at its desired state until it is stopped.

    Args:
        paths: Where the hint socket and the keyring are.
        keys: Private keys.
        interval_s: Between two periodic passes over a node.
        connect: Makes the connection to a node; SSH but in tests.
        witnesses: Who cosigns heads of the log.
        receipt_days: How long what receipts say is kept.
    """

    def __init__(
        self,
        paths: ControlPaths,
        keys: ReconcilerKeys,
        interval_s: float,
        *,
        connect: Connect | None = None,
        witnesses: tuple[WitnessConfig, ...] = (),
        receipt_days: int | None = None,
    ) -> None:
        self._paths = paths
        self._keys = keys
        self._interval_s = interval_s
        self._connect = connect or (lambda node: connect_by_ssh(node, keys.ssh_file))
        self._workers: dict[str, NodeWorker] = {}
        self._stopping = threading.Event()
        self._restored = read_restored(paths)
        self._keeper = Keeper(paths.log, keys.checkpoints, witnessed=bool(witnesses), restored=self._restored)
        self._witnesses = Witnesses(paths.log, keys.checkpoints.verifier_keys, witnesses)
        self._retention = Retention(receipt_days)
        self._log_error = ""
        self._shows_log_keys = False
        # A thread of its own: a thousand receipts take their time, and a revocation has none to lose.
        self._log_thread = threading.Thread(target=self._keep_log_forever, name="log", daemon=True)

    @classmethod
    def from_settings(cls) -> Self:
        """Make the reconciler that control.json describes.

        Raises:
            HostError: If a private key cannot be read.
        """
        config = settings.CONFIG
        return cls(
            settings.PATHS,
            read_keys(settings.PATHS),
            config.interval_s,
            witnesses=config.witnesses,
            receipt_days=config.receipt_days,
        )

    def pass_once(self) -> dict[str, str]:
        """Make one pass over each node in turn; return the error code of each, empty where all is well."""
        self._find_nodes()
        codes = {name: worker.pass_once() for name, worker in self._workers.items()}
        self._keep_log()
        for worker in self._workers.values():
            worker.stop()
        return codes

    def run_until_signal(self) -> None:
        """Run until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        self.run()

    def run(self) -> None:
        """Run until `stop` is called."""
        try:
            with HintListener(self._paths.hint_socket) as listener:
                self._log_thread.start()
                log_event(logger, logging.INFO, "reconciler_started")
                while not self._stopping.is_set():
                    self._serve_once(listener)
        finally:
            for worker in self._workers.values():
                worker.stop()
            if self._log_thread.is_alive():
                self._stopping.set()
                self._log_thread.join()
            connections.close_all()

    def stop(self) -> None:
        """End `run` within a second."""
        self._stopping.set()

    def _serve_once(self, listener: HintListener) -> None:
        """Start workers for new nodes, and wake all when a hint comes."""
        close_old_connections()
        for worker in self._find_nodes():
            worker.start()
        if listener.wait(POLL_S):
            for worker in self._workers.values():
                worker.wake()

    def _keep_log_forever(self) -> None:
        try:
            while not self._stopping.wait(POLL_S):
                close_old_connections()
                self._keep_log()
                self._watch_clock()
        finally:
            connections.close_all()

    def _keep_log(self) -> None:
        """Let the keeper work. A log that cannot be written holds up nothing else, and says so once."""
        error = ""
        try:
            self._keeper.keep()
            if not self._shows_log_keys:
                publish_log_keys(self._paths, self._keys.checkpoints)
                self._shows_log_keys = True
            self._witnesses.settle()
            self._retention.delete_old()
        except (ApplianceError, DatabaseError) as problem:
            error = problem.code if isinstance(problem, ApplianceError) else "database"
        if error and error != self._log_error:
            log_event(logger, logging.ERROR, "log_not_kept", error=error)
        self._log_error = error

    def _watch_clock(self) -> None:
        """Do what time alone makes due: alarms over silence, and forgetting who was connected."""
        try:
            watch_silence(max(SILENT, 3 * timedelta(seconds=self._interval_s)))
            forget_peers(timezone.now())
        except DatabaseError:
            log_event(logger, logging.ERROR, "silence_not_watched", error="database")

    def _find_nodes(self) -> list[NodeWorker]:
        """Make a worker for each node that has none; return the new ones."""
        new = [node for node in Node.objects.all() if node.name not in self._workers]
        for node in new:
            client = NodeClient(self._connect(node))
            self._workers[node.name] = NodeWorker(
                node.name,
                client,
                self._keys,
                keyring=self._paths.keyring,
                log=self._paths.log,
                interval_s=self._interval_s,
                restored=self._restored,
            )
        return [self._workers[node.name] for node in new]

"""Control's reconciler in a process of its own, over a Unix socket instead of SSH: `python control_under_kill.py CONFIG SOCKET new|forever|once`.

It works in small steps, so that a kill finds it in many places. `once` makes a last pass and prints what the database holds.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from simulated_node import SocketChannel

from control.startup import start_django


class OverSocket:
    """A connection to the simulated node that listens at a path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: list[SocketChannel] = []

    def open_channel(self) -> SocketChannel:
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(self._path)
        self._open.append(SocketChannel(stream))
        return self._open[-1]

    def close(self) -> None:
        for channel in self._open:
            channel.close()
        self._open.clear()


def main(config: str, path: str, mode: str) -> None:
    start_django(Path(config))
    from control_cast import stored_node
    from django.conf import settings
    from django.core.management import call_command

    from control.audit.models import Alarm, ReceiptRecord
    from control.journal.models import EventPlace
    from control.reconciler import receipts, service
    from control.reconciler.keys import read_keys
    from control.transparency import keeper
    from control.transparency.models import CheckpointRecord

    if mode == "new":
        call_command("migrate", verbosity=0)
        stored_node()
        return
    receipts.PIECE, service.POLL_S, keeper.INTERVAL_S, keeper.FULL = 3, 0.005, 0.0, 50  # type: ignore[misc]
    reconciler = service.Reconciler(
        settings.PATHS, read_keys(settings.PATHS), 0.05, connect=lambda _: OverSocket(path)
    )
    if mode == "forever":
        reconciler.run_until_signal()
        return
    while (
        reconciler.pass_once() != {"node-a": ""}
        or keeper.waiting().exists()
        or keeper.waiting_events().exists()
    ):
        pass
    rows = ReceiptRecord.objects.order_by("place").values_list("place", "verified", "receipt_id")
    entries = {
        record.place: record.signed().canonical_bytes().decode() for record in ReceiptRecord.objects.all()
    }
    entries |= dict(EventPlace.objects.values_list("place", "event__text"))
    print(
        json.dumps(
            {
                "receipts": list(rows),
                "events": list(EventPlace.objects.order_by("event_id").values_list("event_id", "place")),
                "entries": [entry for _, entry in sorted(entries.items())],
                "heads": list(CheckpointRecord.objects.values_list("size", "note")),
                "alarms": list(Alarm.objects.values_list("kind", flat=True)),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

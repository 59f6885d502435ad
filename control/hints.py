"""The hint: one byte from whoever changed the database to the reconciler, after the commit.

A hint carries nothing and promises nothing. When it is lost the periodic pass does the same work later.
"""

from __future__ import annotations

import socket
from pathlib import Path

from django.conf import settings
from django.db import transaction


def hint_on_commit() -> None:
    """Send a hint as soon as the current transaction is committed."""
    transaction.on_commit(lambda: send_hint(settings.PATHS.hint_socket))


def send_hint(path: Path) -> None:
    """Send one byte to the reconciler's socket; a missing or busy listener is fine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(b"\1", str(path))
        except OSError:
            return  # not running, or its queue is full and it will look anyway

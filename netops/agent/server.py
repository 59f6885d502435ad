"""The agent's Unix socket: who may connect, JSON lines in and out, one thread for each connection.

Whom we admit is decided by SO_PEERCRED (unix(7)): root, and the user of the relay. Messages in the log are closed
codes and counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from appliance.core.errors import ApplianceError, HostError, UsageError
from netops.agent.operations import Operations
from netops.lines import MAX_LINE_BYTES

MAX_CONNECTIONS = 32
BACKLOG = 16


class Server:
    """Serves `Operations` on a Unix socket.

    Args:
        path: The socket; replaced if it is there.
        operations: What answers.
        relay_user: Name of the user that may connect besides root; it need not exist.
    """

    def __init__(self, path: Path, operations: Operations, relay_user: str) -> None:
        self._operations = operations
        self._admitted = {0, os.geteuid()}
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        group = None
        with contextlib.suppress(KeyError):
            relay = pwd.getpwnam(relay_user)
            self._admitted.add(relay.pw_uid)
            group = relay.pw_gid
        self._listener = _listen(path, group)

    def serve(self) -> None:
        """Accept connections until `close`."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if _peer_uid(connection) not in self._admitted or not self._free.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Stop accepting; `serve` returns."""
        # close(2) alone would leave accept(2) waiting.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _converse(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while line := stream.readline(MAX_LINE_BYTES + 1):
                    reply, go_on = self._reply(line, stream)
                    connection.sendall(json.dumps(reply, separators=(",", ":")).encode("ascii") + b"\n")
                    if not go_on:
                        return
        except OSError:  # the other side is gone
            return
        finally:
            self._free.release()

    def _reply(self, line: bytes, stream: BinaryIO) -> tuple[dict[str, Any], bool]:
        """Return the reply to a line, and whether the next line can be found after it."""
        number, op = 0, None
        try:
            request = _parse(line)
            number, op = request["id"], request.get("op")
            return {"id": number, "ok": True, "result": self._operations.answer(request, stream)}, True
        except ApplianceError as error:
            log(op, error.code)
            reply = {"id": number, "ok": False, "error": _describe(error)}
            # After a transfer that was not read to its end, what follows is no request. A wrong digest is found
            # after the last byte.
            return reply, number != 0 and (op != "model" or error.code == "pin_mismatch")
        except Exception as error:  # noqa: BLE001 - the edge: one request must not end the agent
            log(op, type(error).__name__)
            return {"id": number, "ok": False, "error": {"code": "error", "message": "internal error"}}, False


def log(op: object, code: str) -> None:
    """Write one line of closed codes to standard error."""
    name = op if isinstance(op, str) and op.isidentifier() and len(op) < 16 else "?"
    print(f"agent: {name} {code}", file=sys.stderr, flush=True)


def _parse(line: bytes) -> Mapping[str, Any]:
    if not line.endswith(b"\n"):
        raise UsageError("a request is one line of at most 64 MiB")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("a request is one JSON object") from error
    if not isinstance(request, dict) or type(request.get("id")) is not int:
        raise UsageError("a request is a JSON object with an integer `id`")
    return request


def _describe(error: ApplianceError) -> dict[str, Any]:
    described: dict[str, Any] = {"code": error.code, "message": str(error)}
    field = getattr(error, "field", None)
    if field is not None:
        described["field"] = field
    if error.hint is not None:
        described["hint"] = error.hint
    return described


def _listen(path: Path, group: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        # The mode is the first line, SO_PEERCRED the one that decides.
        path.chmod(0o600 if group is None else 0o660)
        if group is not None:
            os.chown(path, -1, group)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    return int(uid)

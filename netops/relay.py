"""Copy bytes between standard streams and the agent's socket: what sshd's forced command runs, unprivileged.

It understands nothing of what passes and ends when either side ends. It starts for each SSH connection, so it imports
as little as possible: not even NodePaths, which needs pydantic.
"""

from __future__ import annotations

import os
import socket
import threading

AGENT_SOCKET = "/run/appliance/agent.sock"  # NodePaths().agent_socket; a test holds them equal
CHUNK_BYTES = 262_144


def relay(path: str = AGENT_SOCKET, source: int = 0, sink: int = 1) -> int:
    """Copy until the agent hangs up, or until standard input has ended and the agent has answered what came.

    Returns:
        Exit code: 0, or 1 if the agent does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        try:
            agent.connect(path)
        except OSError:
            os.write(2, b"appliance: the agent does not answer\n")
            return 1
        # One thread for each direction: a full pipe in one must not hold up the other.
        threading.Thread(target=_ask, args=(agent, source), daemon=True).start()
        return _answer(agent, sink)


def _ask(agent: socket.socket, source: int) -> None:
    try:
        while asked := os.read(source, CHUNK_BYTES):
            agent.sendall(asked)
        agent.shutdown(socket.SHUT_WR)
    except OSError:  # the agent hung up; the other thread sees it too
        return


def _answer(agent: socket.socket, sink: int) -> int:
    try:
        while answer := agent.recv(CHUNK_BYTES):
            _write(sink, answer)
    except OSError:  # whoever read our output is gone
        return 1
    return 0


def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]

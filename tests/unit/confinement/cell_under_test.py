"""Runs the real stub with a stand-in for the cell's main, and on request with one mechanism left out.

    python -s -P cell_under_test.py LEFT_OUT CASE --client … (the stub's arguments)

LEFT_OUT is a method of `Confiner` to skip, or `nothing`. CASE names a function below that runs as the cell and
returns its exit code; what it finds out it writes to the notary's connection, its only way to speak.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.confinement import stub
from inference.confinement.confine import Confiner


@dataclass(frozen=True)
class CellInputs:
    client: str
    policy_file: Path
    models: Path
    listener: socket.socket
    notary: socket.socket
    confinement: Any
    cores: int


def say(inputs: CellInputs, **facts: object) -> int:
    inputs.notary.sendall(json.dumps(facts).encode() + b"\n")
    return 0


def facts(inputs: CellInputs) -> int:
    return say(inputs, cores=inputs.cores, **inputs.confinement.model_dump(mode="json"))


def identity(inputs: CellInputs) -> int:
    import os

    found = {name: sorted(os.listdir(name)) for name in (str(inputs.policy_file.parent), str(inputs.models))}
    return say(
        inputs, pid=os.getpid(), uid=os.getuid(), groups=os.getgroups(), folders=found, env=sorted(os.environ)
    )


def refused_calls(inputs: CellInputs) -> int:
    """Every call of the list answers EPERM, whatever its arguments; newer ones do not exist."""
    import errno

    from inference.confinement import libc, syscalls

    column = syscalls.COLUMN[syscalls.machine()]
    wrong = []
    calls = [(name, n[column], errno.EPERM) for name, n in syscalls.REFUSED.items() if n[column] is not None]
    calls += [("clone3", 435, errno.ENOSYS), ("newer", syscalls.LAST_REVIEWED + 1, errno.ENOSYS)]
    for name, number, expected in calls:
        try:
            libc.syscall(number, -1, -1, -1, -1, -1, -1)
            wrong.append(name)
        except OSError as error:
            wrong += [] if error.errno == expected else [name]
    return say(inputs, wrong=wrong, tried=len(calls))


def refused_arguments(inputs: CellInputs) -> int:
    """Calls that are allowed for some arguments only."""
    import fcntl
    import os
    import resource

    left, _right = socket.socketpair()
    attempts: dict[str, Callable[[], object]] = {
        "address": lambda: left.sendto(b"x", "/run/x"),
        "owner": lambda: fcntl.fcntl(left, fcntl.F_SETOWN, 1),
        "limit": lambda: resource.prlimit(1, resource.RLIMIT_CPU),
        "group": lambda: os.kill(0, 0),
        "tun": lambda: fcntl.ioctl(left, 0x8901, b"\0\0\0\0"),
    }
    allowed = {"self": lambda: os.kill(os.getpid(), 0), "pair": lambda: left.send(b"x")}
    wrong = [name for name, attempt in attempts.items() if not _denied(attempt)]
    wrong += [name for name, attempt in allowed.items() if _denied(attempt)]
    return say(inputs, wrong=wrong)


def _denied(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False


def libraries(inputs: CellInputs) -> int:
    """What the cell imports still imports, computes with threads, and forks."""
    import os
    import threading

    import fastapi
    import jinja2
    import llama_cpp
    import numpy as np
    import uvicorn

    square = np.ones((256, 256), dtype=np.float32)
    threads = [threading.Thread(target=lambda: square @ square) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    llama_cpp.llama_backend_init()
    child = os.fork()
    if child == 0:
        os._exit(7)
    forked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    versions = [m.__version__ for m in (fastapi, jinja2, llama_cpp, np, uvicorn)]
    return say(inputs, versions=versions, forked=forked)


def serve_http(inputs: CellInputs) -> int:
    """One request over the inherited socket, served by asyncio."""
    import asyncio

    async def answer_one() -> None:
        done = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
            writer.close()
            done.set()

        async with await asyncio.start_unix_server(answer, sock=inputs.listener):
            await done.wait()
            await asyncio.sleep(0.05)

    asyncio.run(answer_one())
    return 0


def serve_until_told(inputs: CellInputs) -> int:
    """Answer every connection with the process id until SIGTERM, which the stub has handled from its start."""
    import os

    while True:
        connection, _ = inputs.listener.accept()
        connection.sendall(b"%d\n" % os.getpid())
        connection.close()


def ignore_end(inputs: CellInputs) -> int:
    """A cell that does not react to SIGTERM."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return serve_until_told(inputs)


def leak(inputs: CellInputs) -> int:
    """An exception whose text quotes content must be printed nowhere."""
    raise ValueError("CANARY-content")


CASES = {
    case.__name__: case
    for case in (
        facts,
        identity,
        refused_calls,
        refused_arguments,
        libraries,
        serve_http,
        serve_until_told,
        ignore_end,
        leak,
    )
}


def main() -> int:
    left_out, case, *rest = sys.argv[1:]
    confiner = Confiner
    if left_out != "nothing":
        fixed = {"restrict_files": lambda _self: 7, "leave_network": lambda _self: "namespace"}
        skipped = fixed.get(left_out, lambda _self, *_: None)
        confiner = type("LeavesOneOut", (Confiner,), {left_out: skipped})
    stand_in = types.ModuleType("inference.cell.main")
    stand_in.__dict__.update(CellInputs=CellInputs, serve=CASES[case])
    sys.modules["inference.cell.main"] = stand_in
    parser = argparse.ArgumentParser()
    stub.configure(parser)
    return stub.run(parser.parse_args(rest), confiner)


if __name__ == "__main__":
    sys.exit(main())

"""The launcher starts a cell at the first connection, isolated, and never in a tight loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from appliance.core.node import NodePaths
from inference.confinement import landlock
from inference.launcher import after_exit
from inference.launcher import guard as guards
from inference.launcher.after_exit import AfterExit
from inference.launcher.launcher import Isolation, Launcher
from inference.lines import Request

SCRIPT = Path(__file__).parents[1] / "confinement" / "cell_under_test.py"
UID = 61_900
pytestmark = pytest.mark.skipif(landlock.observe_abi() < 2, reason="the kernel has no Landlock ABI 2")


@pytest.fixture
def paths() -> Iterator[NodePaths]:
    with tempfile.TemporaryDirectory(prefix="apl-l-") as folder:
        paths = NodePaths(Path(folder))
        for made in (paths.seats, paths.models, paths.clients, paths.notary_clients / "a"):
            made.mkdir(parents=True)
        (paths.seats / "0").touch()
        (paths.models / ("0" * 64)).write_bytes(b"weights")
        yield paths


@asynccontextmanager
async def launching(
    paths: NodePaths,
    case: str,
    *,
    isolated: bool = False,
    left_out: str = "nothing",
    command: tuple[str, ...] = (),
) -> AsyncIterator[tuple[Launcher, socket.socket]]:
    """A launcher whose cells run a stand-in, and the notary's end of what they are connected to."""
    notary = socket.socket(socket.AF_UNIX)
    notary.bind(str(paths.notary_clients / "a" / "notary.sock"))
    os.chmod(paths.notary_clients / "a" / "notary.sock", 0o666)
    notary.listen(64)
    notary.setblocking(False)
    program = (sys.executable, "-s", "-P", str(SCRIPT), left_out, case)
    isolation = Isolation(UID, os.getgid()) if isolated else None
    launcher = Launcher(paths, isolation, AfterExit(command), program)
    (paths.clients / "a").mkdir(exist_ok=True)
    (paths.clients / "a" / "policy.json").write_text("{}")
    launcher.set_clients(["a"])
    try:
        yield launcher, notary
    finally:
        await launcher.aclose()
        notary.close()


async def ask(paths: NodePaths) -> bytes:
    reader, writer = await asyncio.open_unix_connection(paths.clients / "a" / "http.sock")
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def said(notary: socket.socket) -> dict[str, object]:
    connection, _ = await asyncio.get_running_loop().sock_accept(notary)
    connection.setblocking(False)
    with connection:
        return dict(json.loads(await asyncio.get_running_loop().sock_recv(connection, 65536)))


async def call(launcher: Launcher, op: str, **fields: object) -> dict[str, object]:
    return await launcher.handle(Request(1, op, fields))


async def until(condition: object, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_runs_before_the_first_connection_and_one_cell_after_it(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with launching(paths, "serve_until_told") as (launcher, _):
            assert await call(launcher, "cells") == {"cells": []}
            first, second = await ask(paths), await ask(paths)
            assert first == second
            (cell,) = (await call(launcher, "cells"))["cells"]  # type: ignore[misc]
            assert cell["client"] == "a"
            assert cell["rss_bytes"] > 2**20
            assert cell["pid"] == int(first)

    asyncio.run(scenario())


def test_an_ended_cell_is_replaced_by_a_fresh_one(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with launching(paths, "serve_until_told") as (launcher, _):
            first = int(await ask(paths))
            await call(launcher, "end", client="a")
            await until(lambda: not alive(first))
            assert int(await ask(paths)) != first

    asyncio.run(scenario())


def test_a_cell_that_ignores_sigterm_is_killed_when_its_time_is_over(
    paths: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "KILL_AFTER_S", 1.0)

    async def scenario() -> None:
        async with launching(paths, "ignore_end") as (launcher, _):
            pid = int(await ask(paths))
            began = asyncio.get_running_loop().time()
            launcher.set_clients([])
            await until(lambda: not alive(pid))
            assert 0.8 < asyncio.get_running_loop().time() - began < 4
            assert not (paths.clients / "a" / "http.sock").exists()

    asyncio.run(scenario())


def test_a_cell_that_fails_at_once_is_not_started_in_a_tight_loop_and_is_started_again(
    paths: NodePaths,
) -> None:
    async def scenario() -> None:
        exits = 0
        async with launching(paths, "leak") as (launcher, _):
            guard = launcher._guards["a"]
            finish = guard._on_exit

            def count() -> None:
                nonlocal exits
                exits += 1
                finish()

            guard._on_exit = count
            waiting = asyncio.create_task(ask(paths))
            await until(lambda: exits == 2)  # again after one second, although nobody connected anew
            await asyncio.sleep(1.0)
            assert exits == 2  # now it rests for two
            waiting.cancel()

    asyncio.run(scenario())


def test_a_refusal_is_told_once_in_closed_words_with_a_hint(
    paths: NodePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with launching(paths, "facts", left_out="restrict_files"):
            waiting = asyncio.create_task(ask(paths))
            told = ""

            def is_told() -> bool:
                nonlocal told
                told += capsys.readouterr().err
                return told.count("\n") == 1

            await until(is_told)
            assert told == (
                "cell refused: write: a file could be opened for writing; run `appliance doctor` and mend what it "
                "marks\n"
            )
            waiting.cancel()

    asyncio.run(scenario())


def test_the_command_after_exit_is_coalesced(paths: NodePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_exit, "INTERVAL_S", 0.6)
    log = paths.root / "ran"

    async def scenario() -> None:
        runner = AfterExit(("sh", "-c", 'echo x >> "$0"', str(log)))
        for _ in range(5):
            runner.request()
        await until(log.exists)
        for _ in range(5):
            runner.request()
        await asyncio.sleep(0.3)
        assert log.read_text() == "x\n"
        await until(lambda: log.read_text() == "x\nx\n")
        runner.request()
        runner.close()
        await asyncio.sleep(0.7)
        assert log.read_text() == "x\nx\n"

    asyncio.run(scenario())


def test_the_command_runs_after_a_cell_has_ended(paths: NodePaths) -> None:
    log = paths.root / "ran"

    async def scenario() -> None:
        async with launching(paths, "serve_until_told", command=("touch", str(log))) as (launcher, _):
            await ask(paths)
            assert not log.exists()
            await call(launcher, "end", client="a")
            await until(log.exists)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("clients", {"clients": ["../x"]}),
        ("clients", {"clients": "a"}),
        ("end", {"client": ["a"]}),
        ("end", {"client": "nobody"}),
        ("cells", {"more": 1}),
        ("nothing", {}),
    ],
)
def test_what_is_not_in_the_protocol_is_refused(paths: NodePaths, op: str, fields: dict[str, object]) -> None:
    from appliance.core.errors import ApplianceError

    async def scenario() -> None:
        async with launching(paths, "facts") as (launcher, _):
            with pytest.raises(ApplianceError):
                await call(launcher, op, **fields)

    asyncio.run(scenario())


@pytest.mark.lab
def test_an_isolated_cell_is_alone_and_sees_four_folders(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with launching(paths, "identity", isolated=True) as (_, notary):
            async with asyncio.timeout(20):
                waiting = asyncio.create_task(ask(paths))
                told = await said(notary)
            waiting.cancel()
            assert told["pid"] == 1
            assert told["uid"] == UID
            assert told["groups"] == []
            assert told["folders"] == {
                "/run/appliance/cell": ["http.sock", "policy.json"],
                "/var/lib/appliance/models/sha256": ["0" * 64],
            }
            assert told["env"] == [
                "GLIBC_TUNABLES",
                "LANG",
                "PATH",
                "PYTHONDONTWRITEBYTECODE",
                "PYTHONMALLOC",
            ]

    asyncio.run(scenario())


@pytest.mark.lab
def test_an_isolated_cell_is_confined_in_a_network_namespace(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with launching(paths, "facts", isolated=True) as (_, notary):
            async with asyncio.timeout(20):
                waiting = asyncio.create_task(ask(paths))
                told = await said(notary)
            waiting.cancel()
            assert told["network"] == "namespace"
            assert told["seccomp"] is True

    asyncio.run(scenario())


@pytest.mark.lab
def test_two_clients_run_as_two_users_and_nginx_may_connect(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with launching(paths, "serve_until_told", isolated=True) as (launcher, _):
            (paths.clients / "b").mkdir()
            launcher.set_clients(["a", "b"])
            uids = {name: guard.order.uid for name, guard in launcher._guards.items()}
            assert uids == {"a": UID, "b": UID + 1}
            assert stat.S_IMODE((paths.clients / "a" / "http.sock").stat().st_mode) == 0o660
            launcher.set_clients(["b"])
            launcher.set_clients(["b", "c"])
            assert launcher._guards["c"].order.uid == UID

    asyncio.run(scenario())


@pytest.mark.lab
def test_the_end_of_the_launcher_is_the_end_of_its_cells(paths: NodePaths) -> None:
    async def scenario() -> int:
        async with launching(paths, "serve_until_told", isolated=True) as (launcher, _):
            await ask(paths)
            (cell,) = (await call(launcher, "cells"))["cells"]  # type: ignore[misc]
            pid = int(cell["pid"])
            status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
            assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}" in status
            assert "Groups:\t \n" in status
            assert "CapEff:\t0000000000000000" in status
            os.kill(os.getpid(), 0)
            return pid

    # The launcher runs in a child that is killed without a chance to clean up.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:

        async def killed() -> None:
            async with launching(paths, "ignore_end", isolated=True) as (launcher, _):
                await ask(paths)
                os.write(writer, b"%d" % launcher._guards["a"].pid)
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            asyncio.run(killed())
        finally:
            os._exit(1)
    os.close(writer)
    pid = int(os.read(reader, 16))
    os.close(reader)
    os.waitpid(child, 0)

    async def gone() -> None:
        await until(lambda: not alive(pid))

    asyncio.run(gone())
    (paths.notary_clients / "a" / "notary.sock").unlink()
    pid = asyncio.run(scenario())
    assert not alive(pid)

"""What was not synced is lost with the power: every receipt that a cell was given was on the disk before."""

from __future__ import annotations

import asyncio
import os

import pytest
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter, segment

from appliance.core.node import NodePaths
from inference.notary.archive import Archive
from inference.notary.ledger import Ledger
from inference.notary.notary import Notary


def test_an_answer_never_comes_before_the_fsync_that_makes_it_true(
    paths: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = b""
    journal_file = segment(paths)
    fsync = os.fsync

    def remember(descriptor: int) -> None:
        nonlocal disk
        fsync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(journal_file):
            disk = journal_file.read_bytes()

    async def scenario() -> None:
        notary = await Notary.start("node-1", paths)
        agent = await Line.to(paths.notary_control)
        await agent.ask("clients", clients=CLIENTS)
        cells = [await Line.to(counter(paths, name)) for name in "abab"]

        async def sessions(cell: Line) -> None:
            for _ in range(10):
                receipt = (await cell.ask("open", opening=OPENING))["receipt"]
                assert receipt.encode() in disk
                signed = (await cell.ask("close", receipt=receipt, draft=DRAFT))["signed"]
                assert signed["signature"].encode() in disk

        await asyncio.gather(*map(sessions, cells))
        for line in (*cells, agent):
            await line.close()
        await notary.aclose()

    monkeypatch.setattr(os, "fsync", remember)
    asyncio.run(scenario())


def test_a_disk_as_it_was_at_any_moment_can_be_started_from(paths: NodePaths) -> None:
    async def scenario() -> None:
        notary = await Notary.start("node-1", paths)
        agent = await Line.to(paths.notary_control)
        await agent.ask("clients", clients=CLIENTS)
        cell = await Line.to(counter(paths))
        for _ in range(3):
            receipt = (await cell.ask("open", opening=OPENING))["receipt"]
            await cell.ask("close", receipt=receipt, draft=DRAFT)
        for line in (cell, agent):
            await line.close()
        await notary.aclose()

    asyncio.run(scenario())
    whole = segment(paths).read_bytes()
    for length in range(whole.index(b"}") + 1, len(whole), 7):
        segment(paths).write_bytes(whole[:length])
        archive = Archive(paths.notary / "journal", Ledger("node-1", "0" * 32))
        assert len(archive) <= 3
        assert len(archive.ledger.open) <= 1
        archive.close()

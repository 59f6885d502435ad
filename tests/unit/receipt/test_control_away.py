"""Control is away for a day: the node goes on serving, and afterwards everything arrives, once and in order."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from control_cast import stored_node
from django.conf import settings
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter, paths_in

from appliance.core.heartbeat import SignedHeartbeat
from appliance.core.node import NodePaths
from appliance.core.receipt import NodeKey, make_keyring, timestamp
from appliance.transparency.checkpoint import Policy
from control.audit.heartbeats import take_heartbeat
from control.audit.models import Alarm, ReceiptRecord
from control.fleet.models import Node
from control.reconciler.keys import read_keys
from control.reconciler.receipts import pull_receipts
from control.transparency import keeper as module
from control.transparency.keeper import Keeper
from control.transparency.proofs import prove
from inference.notary import notary as notary_module
from inference.notary.archive import Archive
from inference.notary.notary import Notary
from provisioning.answers import Receipts

SESSIONS = 1440  # one a minute
DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[NodePaths]:
    """A node whose journal has many segments, and whose day is as short as its sessions."""
    monkeypatch.setattr(Archive.__init__, "__kwdefaults__", {"max_bytes": 8 * 2**20, "segment_bytes": 2**17})
    ticks = count()
    monkeypatch.setattr(notary_module, "now", lambda: timestamp(START + next(ticks) * DAY / (2 * SESSIONS)))
    with tempfile.TemporaryDirectory(prefix="apl-d-") as folder:
        yield paths_in(Path(folder))


class OverAgent:
    """What `pull_receipts` and `take_heartbeat` need of a connection, straight from the notary's socket."""

    def __init__(self, paths: NodePaths) -> None:
        self._paths = paths

    def _ask(self, op: str, **fields: object) -> dict[str, object]:
        async def ask() -> dict[str, object]:
            line = await Line.to(self._paths.notary_control)
            try:
                return dict(await line.ask(op, **fields))
            finally:
                await line.close()

        return asyncio.run(ask())

    def receipts(self, after: int, limit: int) -> Receipts:
        return Receipts.parse(self._ask("export", after=after, limit=limit))

    def heartbeat(self, nonce: str) -> SignedHeartbeat:
        return SignedHeartbeat.parse(self._ask("heartbeat", nonce=nonce)["signed"])


async def serve(paths: NodePaths, sessions: int) -> None:
    cells = [await Line.to(counter(paths, "ab"[number % 2])) for number in range(8)]

    async def one(cell: Line, times: int) -> None:
        for _ in range(times):
            opened = await cell.ask("open", opening=OPENING)
            await cell.ask("close", receipt=opened["receipt"], draft=DRAFT)

    await asyncio.gather(*(one(cell, sessions // len(cells)) for cell in cells))
    for cell in cells:
        await cell.close()


@pytest.mark.django_db(transaction=True)
def test_a_day_without_control_loses_nothing(paths: NodePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    shutil.rmtree(settings.PATHS.log, ignore_errors=True)  # it outlives a test's database
    keys = read_keys(settings.PATHS)
    row = stored_node("node-1")

    async def scenario() -> None:
        notary = await Notary.start("node-1", paths)
        agent = await Line.to(paths.notary_control)
        await agent.ask("clients", clients=CLIENTS)
        await serve(paths, SESSIONS)  # nobody fetches
        status = await agent.ask("status")
        assert (status["records"], status["waiting"]) == (SESSIONS, SESSIONS)
        assert len(list((paths.notary / "journal").iterdir())) > 10
        position = await asyncio.to_thread(come_back, notary.public_key)
        assert await agent.ask("admitted", position=position) == {"waiting": 0}
        await agent.close()
        await notary.aclose()

    def come_back(public_key: str) -> int:
        Node.objects.filter(pk=row.pk).update(receipt_public_key=public_key)
        node = Node.objects.get(pk=row.pk)
        keyring = make_keyring((NodeKey(node="node-1", public_key=public_key),), keys.log)
        client = OverAgent(paths)
        heartbeat = take_heartbeat(node, client)  # type: ignore[arg-type]
        assert pull_receipts(node, client, keyring, heartbeat) == SESSIONS  # type: ignore[arg-type]
        while Keeper(settings.PATHS.log, keys.checkpoints).keep():
            pass
        return node.receipts_position

    asyncio.run(scenario())
    records = list(ReceiptRecord.objects.order_by("place"))
    assert [record.place for record in records] == list(range(SESSIONS))
    assert not Alarm.objects.exists()
    days = [record.signed().receipt.ended_at for record in (records[0], records[-1])]
    assert days[0] < "2026-01-01T00:10" < "2026-01-01T23:50" < days[1]
    proof = prove(records[SESSIONS // 2], settings.PATHS.log)
    proof.verify(records[SESSIONS // 2].signed().canonical_bytes(), Policy(*keys.checkpoints.verifier_keys))

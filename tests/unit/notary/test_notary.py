"""What a cell and the agent can ask of the notary, and what comes of it when they go away or misbehave."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter, segment

from appliance.core.names import ZERO_DIGEST
from appliance.core.node import NodePaths
from appliance.core.receipt import NodeKey, SignedReceipt, make_keyring, verify_receipt
from inference.notary.journal import Segment
from inference.notary.notary import Notary


@asynccontextmanager
async def running(paths: NodePaths) -> AsyncIterator[tuple[Notary, Line]]:
    notary = await Notary.start("node-1", paths)
    agent = await Line.to(paths.notary_control)
    try:
        await agent.ask("clients", clients=CLIENTS)
        yield notary, agent
    finally:
        await agent.close()
        await notary.aclose()


async def receipt_of(cell: Line, **changed: object) -> SignedReceipt:
    opened = await cell.ask("open", opening=OPENING)
    closed = await cell.ask("close", receipt=opened["receipt"], draft=DRAFT | changed)
    return SignedReceipt.parse(closed["signed"])


async def settled(notary: Notary, agent: Line) -> None:
    async with asyncio.timeout(5):
        while (await agent.ask("status"))["open"]:  # noqa: ASYNC110 - the notary tells only who asks
            await asyncio.sleep(0.01)


def test_receipts_verify_offline_and_form_a_chain_without_gaps(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (notary, agent):
            cell = await Line.to(counter(paths))
            receipts = [await receipt_of(cell) for _ in range(3)]
            keyring = make_keyring(
                (NodeKey(node="node-1", public_key=notary.public_key),), Ed25519PrivateKey.generate()
            )
            previous = ZERO_DIGEST
            for seq, signed in enumerate(receipts, 1):
                verify_receipt(signed, keyring)
                assert (signed.receipt.seq, signed.receipt.prev) == (seq, previous)
                assert signed.receipt.client == "a" * 64
                previous = signed.receipt.digest
            assert await agent.ask("status") == {
                "public_key": notary.public_key,
                "boot": notary.boot,
                "records": 3,
                "open": 0,
                "tokens": 3 * DRAFT["completion_tokens"],
                "waiting": 3,
                "bytes": segment(paths).stat().st_size,
                "max_bytes": 2**30,
                "placed": 0,
            }
            await cell.close()

    asyncio.run(scenario())


def test_a_cell_that_dies_leaves_a_receipt_that_says_crashed(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (notary, agent):
            cell = await Line.to(counter(paths))
            await cell.ask("open", opening=OPENING)
            cell.writer.transport.abort()
            await settled(notary, agent)
            (entry,) = (await agent.ask("export", after=0, limit=10))["entries"]
            assert json.loads(entry["signed"])["receipt"]["end"] == "crashed"
            assert json.loads(entry["signed"])["receipt"]["erase"] == {
                "bytes": 0,
                "verified": False,
                "text": "at_exit",
            }

    asyncio.run(scenario())


def test_a_request_that_was_in_flight_when_the_cell_died_is_not_lost(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (notary, agent):
            cell = await Line.to(counter(paths))
            for _ in range(20):
                cell.send("open", opening=OPENING)
            await cell.writer.drain()
            await cell.reply()
            cell.writer.transport.abort()
            await settled(notary, agent)
            entries = (await agent.ask("export", after=0, limit=100))["entries"]
            assert {json.loads(e["signed"])["receipt"]["end"] for e in entries} == {"crashed"}
            assert [json.loads(e["signed"])["receipt"]["seq"] for e in entries] == list(
                range(1, len(entries) + 1)
            )

    asyncio.run(scenario())


def test_a_client_gets_its_own_receipts_and_nobody_elses(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths):
            mine, other = await Line.to(counter(paths, "a")), await Line.to(counter(paths, "b"))
            signed = await receipt_of(mine)
            told = await mine.ask("get", receipt=signed.receipt.id)
            assert SignedReceipt.parse(told["signed"]) == signed
            assert await other.ask("get", receipt=signed.receipt.id) == "not_found"
            assert await other.ask("get", receipt="0" * 32) == "not_found"
            opened = await mine.ask("open", opening=OPENING)
            assert await other.ask("close", receipt=opened["receipt"], draft=DRAFT) == "not_found"
            await mine.close()
            await other.close()

    asyncio.run(scenario())


def test_a_receipt_is_closed_once(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (_, agent):
            cell = await Line.to(counter(paths))
            signed = await receipt_of(cell)
            assert await cell.ask("close", receipt=signed.receipt.id, draft=DRAFT) == "not_found"
            opened = await cell.ask("open", opening=OPENING)
            for _ in range(2):
                cell.send("close", receipt=opened["receipt"], draft=DRAFT)
            assert [(await cell.reply())["ok"] for _ in range(2)] == [True, False]
            assert (await agent.ask("status"))["records"] == 2
            await cell.close()

    asyncio.run(scenario())


def test_a_removed_client_ends_with_revoked_and_its_socket_goes(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (notary, agent):
            cell = await Line.to(counter(paths))
            await cell.ask("open", opening=OPENING)
            assert await agent.ask("clients", clients=CLIENTS[1:]) == {"added": [], "removed": ["a"]}
            assert not counter(paths).parent.exists()
            assert await cell.reader.read() == b""
            await settled(notary, agent)
            (entry,) = (await agent.ask("export", after=0, limit=10))["entries"]
            assert json.loads(entry["signed"])["receipt"]["end"] == "revoked"
            await cell.close()

    asyncio.run(scenario())


def test_a_restarted_notary_serves_at_once_and_closes_what_was_open(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (notary, _):
            cell = await Line.to(counter(paths))
            first = await receipt_of(cell)
            key = notary.public_key
            # What a killed notary leaves behind: an open record and nothing else.
            await cell.ask("open", opening=OPENING)
            copy = segment(paths).read_bytes()
            await cell.close()
        segment(paths).write_bytes(copy)
        notary = await Notary.start("node-1", paths)
        assert notary.public_key == key
        cell = await Line.to(counter(paths))
        third = await receipt_of(cell)
        second = SignedReceipt.parse_canonical(notary.archive.texts(1, 1)[0][1].encode()).receipt
        assert (second.end, second.prev) == ("crashed", first.receipt.digest)
        assert (third.receipt.seq, third.receipt.prev) == (3, second.digest)
        assert third.receipt.boot != first.receipt.boot
        await cell.close()
        await notary.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "usage"),
        (b"[]", "usage"),
        (b"\xff\xfe", "usage"),
        (b'{"id":1}', "usage"),
        (b'{"id":true,"op":"get"}', "usage"),
        (b'{"id":1,"op":"nothing"}', "usage"),
        (b'{"id":1,"op":"open"}', "usage"),
        (b'{"id":1,"op":"open","opening":{},"more":1}', "usage"),
        (b'{"id":1,"op":"open","opening":{}}', "refused"),
        (b'{"id":1,"op":"open","opening":NaN}', "refused"),
        (b'{"id":1,"op":"open","opening":"\\ud800"}', "refused"),
        (b'{"id":1,"op":"get","receipt":{}}', "usage"),
        (b'{"id":1,"op":"get","receipt":"zz"}', "not_found"),
        (b'{"id":1,"op":"open","opening":' + b"[" * 900 + b"]" * 900 + b"}", "refused"),
        (b"[" * 30_000, "usage"),
        (b'{"id":' + b"9" * 10_000 + b"}", "usage"),
    ],
)
def test_nonsense_from_a_cell_gets_a_closed_code_and_the_notary_goes_on(
    paths: NodePaths, line: bytes, code: str
) -> None:
    async def scenario() -> None:
        async with running(paths):
            cell = await Line.to(counter(paths))
            cell.writer.write(line + b"\n")
            assert (await cell.reply())["error"]["code"] == code
            await receipt_of(cell)
            await cell.close()

    asyncio.run(scenario())


def test_a_line_beyond_64_kib_ends_the_connection(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths):
            cell = await Line.to(counter(paths))
            cell.writer.write(b"x" * 200_000 + b"\n")
            assert (await cell.reply())["error"]["code"] == "usage"
            assert await cell.reader.read() == b""
            await cell.close()
            again = await Line.to(counter(paths))
            await receipt_of(again)
            await again.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "changed",
    [
        {"end": "crashed"},
        {"end": "because"},
        {"requests": -1},
        {"note": "x"},
        {"erase": {"bytes": 1, "verified": 1}},
    ],
)
def test_a_draft_outside_the_schema_is_refused_and_the_session_stays_open(
    paths: NodePaths, changed: dict[str, object]
) -> None:
    async def scenario() -> None:
        async with running(paths) as (_, agent):
            cell = await Line.to(counter(paths))
            opened = await cell.ask("open", opening=OPENING)
            assert await cell.ask("close", receipt=opened["receipt"], draft=DRAFT | changed) == "refused"
            assert (await agent.ask("status"))["open"] == 1
            assert "signed" in await cell.ask("close", receipt=opened["receipt"], draft=DRAFT)
            await cell.close()

    asyncio.run(scenario())


def test_a_journal_that_cannot_be_written_refuses_sessions_and_loses_no_receipt(
    paths: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(paths) as (_, agent):
            cell = await Line.to(counter(paths))
            await receipt_of(cell)
            opened = await cell.ask("open", opening=OPENING)
            with monkeypatch.context() as full:
                full.setattr(Segment, "_write", lambda _self, _data: _raise())
                assert await cell.ask("open", opening=OPENING) == "journal_unavailable"
                refused = await cell.ask("close", receipt=opened["receipt"], draft=DRAFT)
                assert refused == "journal_unavailable"
            closed = await cell.ask("close", receipt=opened["receipt"], draft=DRAFT)
            assert closed["signed"]["receipt"]["seq"] == 2
            assert (await agent.ask("status"))["open"] == 0
            await cell.close()

    def _raise() -> None:
        raise OSError(28, "no space")

    asyncio.run(scenario())


def test_the_key_and_the_sockets_are_for_whom_they_are_for(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths):
            modes = {
                paths.notary / "signing.key": 0o600,
                paths.notary / "journal": 0o700,
                segment(paths): 0o600,
                paths.notary_control: 0o600,
                paths.notary_clients: 0o700,
                counter(paths).parent: 0o755,
                counter(paths): 0o666,
            }
            assert {path: stat.S_IMODE(path.stat().st_mode) for path in modes} == modes

    asyncio.run(scenario())


def test_an_export_goes_on_where_the_last_one_ended(paths: NodePaths) -> None:
    async def scenario() -> None:
        async with running(paths) as (_, agent):
            cells = [await Line.to(counter(paths, name)) for name in "ab"]
            for cell in cells * 3:
                await receipt_of(cell)
            seen, after = [], 0
            while (page := await agent.ask("export", after=after, limit=4))["entries"]:
                seen += [entry["position"] for entry in page["entries"]]
                after = page["next"]
            assert seen == [1, 2, 3, 4, 5, 6]
            assert await agent.ask("export", after=0, limit=0) == "usage"
            for cell in cells:
                await cell.close()

    asyncio.run(scenario())


def test_closes_that_arrive_together_share_an_fsync(
    paths: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(paths) as (notary, _):
            groups: list[int] = []
            append = notary.archive.append
            monkeypatch.setattr(
                notary.archive,
                "append",
                lambda payloads: groups.append(len(payloads)) or append(payloads),
            )
            cells = [await Line.to(counter(paths)) for _ in range(60)]
            opened = await asyncio.gather(*(cell.ask("open", opening=OPENING) for cell in cells))
            closed = await asyncio.gather(
                *(
                    cell.ask("close", receipt=one["receipt"], draft=DRAFT)
                    for cell, one in zip(cells, opened, strict=True)
                )
            )
            assert sorted(one["signed"]["receipt"]["seq"] for one in closed) == list(range(1, 61))
            assert sum(groups) == 120
            assert len(groups) < 60
            for cell in cells:
                await cell.close()

    asyncio.run(scenario())

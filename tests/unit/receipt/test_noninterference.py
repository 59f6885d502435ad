"""A receipt says nothing of what was said: sessions of the same shape with other content have the same receipt.

The engine is the real one with the shipped model, since what a receipt says of the erase comes from its KV cache; the notary
writes a real journal. The same shape is: as many requests, tokens in and out, and the same end. Everything else may differ
between the two: language, secrets, control characters, system prompts, streaming, sampling.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from journal_frames import payloads
from pydantic import BaseModel
from shape_pairs import Shape, Side, open_session, pair, run, shapes
from shape_world import Node

from appliance.core.receipt import End, Receipt, SignedReceipt
from inference.notary.records import OpenRecord

PAIRS = 200  # besides those that end together
TOGETHER = 4  # pairs of kept sessions that one event ends: as many as fit into a cell

# All that may differ: identities, times, the place in the chain, and what is computed from these.
FREE = frozenset(f"receipt.{name}" for name in ("id", "session", "seq", "prev", "opened_at", "ended_at")) | {
    "signature"
}
FREE_WHEN_OPENED = frozenset({"receipt", "opened_at", "opening.session"})

Pair = tuple[SignedReceipt, SignedReceipt]


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="apl-r-") as folder:  # short: a socket's path has 108 bytes
        yield Path(folder)


@pytest.fixture(autouse=True)
def untidied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where overwriting activations is broken off by the next request, the cells of that count for the next session's erase.

    When that happens depends on the machine's load alone.
    """
    monkeypatch.setattr("inference.engine.worker._TIDY_AFTER_S", 3600.0)


def fields(value: BaseModel, path: str = "") -> dict[str, Any]:
    """Return every field of a closed schema with its value, nested ones by their path."""
    found: dict[str, Any] = {}
    for name in type(value).model_fields:
        item = getattr(value, name)
        place = f"{path}.{name}" if path else name
        found |= fields(item, place) if isinstance(item, BaseModel) else {place: item}
    return found


def differences(left: BaseModel, right: BaseModel, free: frozenset[str] = FREE) -> set[str]:
    """Return the fields that differ and may not. Lengths in bytes count as a field; that of the number may differ."""
    one, other = fields(left), fields(right)
    assert one.keys() == other.keys()
    assert free <= one.keys(), "a field that may differ has another name now"
    found = {name for name in one if name not in free and one[name] != other[name]}
    return found | ({"length"} if _length(left) != _length(right) else set())


def _length(value: BaseModel) -> int:
    seq = str(value.receipt.seq) if isinstance(value, SignedReceipt) else ""
    return len(value.canonical_bytes()) - len(seq)  # type: ignore[attr-defined]


def on_a_node(root: Path, scenario: Callable[[Node], Awaitable[list[Pair]]]) -> list[Pair]:
    async def main() -> list[Pair]:
        async with Node.running(root) as node:
            return await scenario(node)

    return asyncio.run(main())


async def one_after_the_other(node: Node, rng: Random, count: int) -> list[Pair]:
    found = []
    async with node.client() as http:
        for shape in shapes(rng, count):
            left, right = pair(rng, node, shape)
            assert left.conversations != right.conversations
            found.append((await run(node, http, left, shape), await run(node, http, right, shape)))
    return found


def test_sessions_of_the_same_shape_have_the_same_receipt(
    root: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, "inference"), caplog.at_level(logging.DEBUG, "appliance"):
        pairs = on_a_node(root, lambda node: one_after_the_other(node, Random(5), PAIRS))
    assert len(pairs) == PAIRS
    assert {left.receipt.end for left, _ in pairs} == {End.ONE_SHOT, End.DELETED, End.DISCONNECTED}
    assert [differences(*both) for both in pairs] == [set()] * PAIRS
    assert {left.receipt.prompt_tokens > 0 < left.receipt.erase.bytes for left, _ in pairs} == {True}
    ours = [record for record in caplog.records if record.name.split(".")[0] in ("appliance", "inference")]
    assert not ours
    assert capfd.readouterr() == ("", "")


def test_the_journal_says_no_more_than_its_receipts(root: Path) -> None:
    pairs = on_a_node(root, lambda node: one_after_the_other(node, Random(6), 12))
    records = [json.loads(payload) for payload in payloads(root / "node/var/lib/appliance/notary")]
    opened = [OpenRecord.parse(record) for record in records if record["kind"] == "open"]
    signed = [SignedReceipt.parse(record["signed"]) for record in records if record["kind"] == "receipt"]
    assert signed == [receipt for both in pairs for receipt in both]
    assert len(opened) + len(signed) + 1 == len(records), "and the record that a segment begins with"
    for left, right in zip(opened[::2], opened[1::2], strict=True):
        assert differences(left, right, FREE_WHEN_OPENED) == set()


async def expired(node: Node, sides: list[tuple[Side, Shape]]) -> list[str]:
    async with node.client() as http:
        return [await open_session(http, side, shape, ttl_s=2) for side, shape in sides]


async def revoked(node: Node, sides: list[tuple[Side, Shape]]) -> list[str]:
    async with node.client("phone") as http:
        sessions = [await open_session(http, side, shape) for side, shape in sides]
    node.allow("laptop")
    return sessions


async def drained(node: Node, sides: list[tuple[Side, Shape]]) -> list[str]:
    async with node.client() as http:
        sessions = [await open_session(http, side, shape) for side, shape in sides]
    await node.stop_cell()
    return sessions


async def crashed(node: Node, sides: list[tuple[Side, Shape]]) -> list[str]:
    async with node.client() as http:
        sessions = [await open_session(http, side, shape) for side, shape in sides]
    node.cut_notary_off()
    return sessions


async def failed(node: Node, sides: list[tuple[Side, Shape]]) -> list[str]:
    """The engine gives up on a request of somebody else; the cell then ends every session and itself."""
    async with node.client() as http:
        sessions = [await open_session(http, side, shape) for side, shape in sides]
        node.engine.break_llama()
        said = [{"role": "user", "content": "Hello"}]
        answer = await http.post("/v1/chat/completions", json={"model": "tiny-reader", "messages": said})
        assert answer.json()["error"]["code"] == "engine_failed"
    (broken,) = await node.receipts(1)
    assert broken.receipt.end is End.FAILED
    return sessions


@pytest.mark.parametrize("event", [expired, revoked, drained, crashed, failed])
def test_so_have_sessions_that_somebody_else_ends(
    root: Path, event: Callable[[Node, list[tuple[Side, Shape]]], Awaitable[list[str]]]
) -> None:
    rng = Random(7)
    shape = Shape(End(event.__name__), answers=(3, 5))
    together = TOGETHER - (event is failed)  # room for the request that fails

    async def scenario(node: Node) -> list[Pair]:
        sides = [(side, shape) for _ in range(together) for side in pair(rng, node, shape)]
        # One at a time reads or writes, as in the other test; they are idle together.
        sessions = await event(node, sides)
        found = {signed.receipt.session: signed for signed in await node.receipts(len(sides))}
        return [(found[a], found[b]) for a, b in zip(sessions[::2], sessions[1::2], strict=True)]

    pairs = on_a_node(root, scenario)
    assert {signed.receipt.end for both in pairs for signed in both} == {shape.end}
    assert [differences(*both) for both in pairs] == [set()] * together


def test_a_receipt_does_not_tell_what_was_guessed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that end by themselves, some with a guess under way and some without: it left cells behind the answer."""
    rng = Random(9)  # in place of what was measured
    monkeypatch.setattr(
        "inference.engine.scheduler.guesses_worth", lambda *_, most, **__: min(most, rng.choice((0, 1, 3, 7)))
    )
    names = ("Ilsa Renn", "Tomas Vey", "Mara Lund", "Oskar Brandt", "Nadia Sorel", "Greta Olm", "Ivo Kern")
    passage = "[1] (journal.md) {0} repaired the {1}. {0} inspected the {1} in May.\n\nWho repaired the {1}?"
    erased: dict[tuple[int, int], list[int]] = {}

    async def scenario(node: Node) -> list[Pair]:
        async with node.client() as http:
            for name in names:
                for thing in ("north pump", "south gate", "old crane", "east tower"):
                    said = [{"role": "user", "content": passage.format(name, thing)}]
                    body = {"model": "tiny-reader", "messages": said, "temperature": 0, "max_tokens": 48}
                    await http.post("/v1/chat/completions", json=body)
                    (signed,) = await node.receipts(1)
                    receipt = signed.receipt
                    shape = receipt.prompt_tokens, receipt.completion_tokens
                    erased.setdefault(shape, []).append(receipt.erase.bytes)
        return []

    on_a_node(root, scenario)
    assert max(map(len, erased.values())) > 3
    assert {shape: len(set(found)) for shape, found in erased.items()} == dict.fromkeys(erased, 1)


def leak_into(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a cell that hides something of the last conversation in a field of its drafts."""
    import hashlib

    from inference.cell import sessions

    honest = sessions.Draft
    close = sessions.Sessions._finish
    told: list[Any] = []

    def leaking(**said: Any) -> Any:
        text = "".join(message["content"] for message in told[-1].said)
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        erase = said["erase"]
        changed: dict[str, Any] = {
            "requests": said["requests"] + len(text) % 97,
            "erase": erase.model_copy(update={"bytes": erase.bytes + int(digest[0], 16)}),
            "corpora": (digest,),
        }
        return honest(**{**said, field: changed[field]})

    async def finish(self: Any, *args: Any) -> Any:
        told.append(self._engine)
        return await close(self, *args)

    monkeypatch.setattr(sessions, "Draft", leaking)
    monkeypatch.setattr(sessions.Sessions, "_finish", finish)


@pytest.mark.parametrize("field", ["requests", "erase", "corpora"])
def test_a_cell_that_leaks_is_found_out(root: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leak_into(field, monkeypatch)
    pairs = on_a_node(root, lambda node: one_after_the_other(node, Random(8), 8))
    named = {name.split(".")[1] for both in pairs for name in differences(*both) if name != "length"}
    assert named == {field}


def test_what_may_differ_is_a_part_of_the_schema_and_nothing_that_was_counted() -> None:
    names = {f"receipt.{name}" for name in Receipt.model_fields} | set(SignedReceipt.model_fields)
    assert names > FREE
    assert not {name for name in FREE if "tokens" in name or "erase" in name or "requests" in name}

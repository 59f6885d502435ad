"""Budgets of a day: what the notary grants and counts, and that no exit, crash, restart or segment makes it forget."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter

from appliance.core.budget import Asks, Used
from appliance.core.errors import RefusedError
from appliance.core.node import NodePaths
from appliance.core.receipt import Draft, End, Opening, timestamp
from inference.notary import notary as module
from inference.notary.archive import Archive
from inference.notary.budget import Budget, QuotaError, Spent, day_of, grant
from inference.notary.ledger import Ledger, Stage
from inference.notary.notary import Notary
from inference.notary.recent import Recent
from inference.notary.records import OpenRecord, lost_draft

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
A, B = CLIENTS


class Clock:
    """The notary's wall clock."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> str:
        return timestamp(self.at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "now", clock)
    return clock


class World:
    """A notary whose client `a` has a budget, its agent, and a cell of each client."""

    def __init__(self, paths: NodePaths, **budget: int) -> None:
        self.paths = paths
        self.budget = budget

    async def __aenter__(self) -> Self:
        self.notary = await Notary.start("node-1", self.paths)
        self.agent = await Line.to(self.paths.notary_control)
        await self.set_budget(**self.budget)
        self.cells = {name: await Line.to(counter(self.paths, name)) for name in "ab"}
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in (*self.cells.values(), self.agent):
            await line.close()
        await self.notary.aclose()

    async def set_budget(self, **budget: int) -> dict[str, Any]:
        return dict(await self.agent.ask("clients", clients=[{**A, **budget}, B]))

    async def open(self, tokens: int, *, least: int = 1, requests: int = 1) -> Any:
        """Return the receipt and what was granted, or the error's code."""
        asks = {"least_tokens": least, "requests": requests, "tokens": tokens}
        return await self.cells["a"].ask("open", opening=OPENING, asks=asks)

    async def close(self, opened: dict[str, Any], tokens: int, **changes: Any) -> None:
        draft = {**DRAFT, "prompt_tokens": 0, "completion_tokens": tokens, **changes}
        assert "signed" in await self.cells["a"].ask("close", receipt=opened["receipt"], draft=draft)

    async def left(self) -> int:
        """Return how many tokens another session would be granted, and change nothing by asking."""
        opened = await self.open(10**6)
        if opened == "quota_exceeded":
            return 0
        await self.close(opened, 0)
        return int(opened["grant"]["tokens"])


def test_a_session_is_granted_what_it_asks_for_or_what_is_left(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=100) as world:
            first = await world.open(70)
            assert first["grant"] == {"tokens": 70}
            assert (await world.open(70, least=31)) == "quota_exceeded"
            second = await world.open(70, least=30)
            assert second["grant"] == {"tokens": 30}
            assert await world.open(1) == "quota_exceeded"
            await world.close(first, 10)  # gives 60 back
            assert await world.left() == 60

    asyncio.run(scenario())


def test_requests_are_a_budget_of_their_own(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths, requests_per_day=3) as world:
            kept = await world.open(1, requests=2)
            assert kept["grant"] == {"requests": 2}
            assert (await world.open(1, requests=2))["grant"] == {"requests": 1}
            assert await world.open(1) == "quota_exceeded"
            await world.close(kept, 5, requests=1)
            assert (await world.open(1))["grant"] == {"requests": 1}

    asyncio.run(scenario())


def test_a_client_without_a_budget_is_granted_nothing_and_says_nothing(
    paths: NodePaths, clock: Clock
) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=5) as world:
            for _ in range(3):
                opened = await world.cells["b"].ask("open", opening=OPENING)
                assert set(opened) == {"receipt"}
                await world.cells["b"].ask("close", receipt=opened["receipt"], draft=DRAFT)
            # One that has a budget must say what it asks for.
            assert await world.cells["a"].ask("open", opening=OPENING) == "refused"
            assert await world.left() == 5

    asyncio.run(scenario())


@pytest.mark.parametrize("asks", [{}, {"tokens": 1}, {"least_tokens": 0, "requests": 1, "tokens": 1}, 7, []])
def test_what_is_no_asking_is_refused(paths: NodePaths, clock: Clock, asks: Any) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=5) as world:
            assert await world.cells["a"].ask("open", opening=OPENING, asks=asks) in ("refused", "usage")
            assert await world.left() == 5

    asyncio.run(scenario())


def test_a_cell_that_dies_resets_nothing(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=100) as world:
            await world.close(await world.open(20), 20)
            await world.open(50)
            await world.cells["a"].close()
            world.cells["a"] = await Line.to(counter(paths))
            while (await world.agent.ask("status"))["open"]:
                pass
            # Nobody said what the lost session used: it keeps its grant.
            assert await world.left() == 30

    asyncio.run(scenario())


def test_a_restart_resets_nothing(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=100) as world:
            await world.close(await world.open(30), 20)
            await world.open(50)
        async with World(paths, tokens_per_day=100) as world:
            assert await world.left() == 30
        async with World(paths, tokens_per_day=100) as world:
            assert await world.left() == 30

    asyncio.run(scenario())


def test_segments_that_are_dropped_reset_nothing(
    paths: NodePaths, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive.__init__, "__kwdefaults__", {"max_bytes": 200_000, "segment_bytes": 4_000})

    async def scenario() -> None:
        async with World(paths, tokens_per_day=1000) as world:
            held = await world.open(100)
            for _ in range(120):
                await world.close(await world.open(5), 5)
                await world.agent.ask("admitted", position=10**6)
            names = sorted(path.name for path in (paths.notary / "journal").glob("*.frames"))
            assert names[0] != f"{1:012}.frames"  # the first one is gone
            assert await world.left() == 1000 - 600 - 100
            assert held["grant"] == {"tokens": 100}
        async with World(paths, tokens_per_day=1000) as world:
            assert await world.left() == 1000 - 600 - 100

    asyncio.run(scenario())


def test_another_budget_ends_no_session_and_counts_what_was_used(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths) as world:
            opened = await world.cells["a"].ask("open", opening=OPENING)
            await world.close(opened, 40)
            assert await world.set_budget(tokens_per_day=100) == {"added": [], "removed": []}
            kept = await world.open(10)
            assert kept["grant"] == {"tokens": 10}
            assert await world.set_budget(tokens_per_day=45) == {"added": [], "removed": []}
            assert await world.open(1) == "quota_exceeded"
            await world.close(kept, 3)
            assert await world.left() == 2

    asyncio.run(scenario())


def test_midnight_begins_a_budget_anew_for_sessions_that_open_after_it(
    paths: NodePaths, clock: Clock
) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=100) as world:
            clock.at = datetime(2026, 11, 21, 23, 59, 59, 999_000, tzinfo=UTC)
            over = await world.open(100)
            assert await world.left() == 0
            clock.at += timedelta(milliseconds=1)
            assert await world.left() == 100
            await world.close(over, 90)  # belongs to the day before
            assert await world.left() == 100
        async with World(paths, tokens_per_day=100) as world:
            assert await world.left() == 100

    asyncio.run(scenario())


def test_a_clock_that_is_set_back_over_midnight_gives_no_budget_twice(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=100) as world:
            clock.at = datetime(2026, 11, 22, 0, 0, 1, tzinfo=UTC)
            await world.close(await world.open(100), 100)
            clock.at -= timedelta(seconds=2)
            assert await world.left() == 0
            clock.at = datetime(
                2090, 1, 1, tzinfo=UTC
            )  # one that was wrong by far blocks nobody once it is right
            await world.close(await world.open(100), 100)
            clock.at = datetime(2026, 11, 23, tzinfo=UTC)
            assert await world.left() == 100

    asyncio.run(scenario())


def test_clients_have_budgets_of_their_own(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths) as world:
            both = [{**A, "tokens_per_day": 10}, {**B, "tokens_per_day": 20}]
            await world.agent.ask("clients", clients=both)
            asks = {"least_tokens": 1, "requests": 1, "tokens": 99}
            granted = [
                (await world.cells[name].ask("open", opening=OPENING, asks=asks))["grant"] for name in "ab"
            ]
            assert granted == [{"tokens": 10}, {"tokens": 20}]

    asyncio.run(scenario())


def test_the_last_minute_is_told_to_a_fresh_cell(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths) as world:
            assert await world.cells["a"].ask("recent") == {"requests": 0, "tokens": 0}
            opened = await world.cells["a"].ask("open", opening=OPENING)
            await world.close(opened, 40, requests=3)
            assert await world.cells["a"].ask("recent") == {"requests": 3, "tokens": 40}
            assert await world.cells["b"].ask("recent") == {"requests": 0, "tokens": 0}

    asyncio.run(scenario())


def test_a_journal_of_before_is_replayed_and_a_record_of_before_keeps_its_bytes() -> None:
    record = OpenRecord(
        client="a" * 64, receipt="1" * 32, opened_at=timestamp(NOON), opening=Opening.parse(OPENING)
    )
    assert b"granted" not in record.canonical_bytes()
    assert OpenRecord.parse_canonical(record.canonical_bytes()) == record


# --- The count itself -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 150), st.integers(0, 9)), max_size=30), st.floats(0, 1e6))
def test_what_is_told_of_the_last_minute_is_never_less_than_half_of_it_nor_more_than_two(
    ended: list[tuple[float, int]], start: float
) -> None:
    now = start
    recent = Recent(lambda: now)
    noted: list[tuple[float, int]] = []
    for pause_s, tokens in ended:
        now += pause_s
        recent.note(1, tokens)
        noted.append((now, tokens))
    told = recent.of_a_minute()
    this_minute = [tokens for at, tokens in noted if at // 60 == now // 60]
    both = [tokens for at, tokens in noted if at // 60 >= now // 60 - 1]
    assert Used(requests=len(this_minute), tokens=sum(this_minute)).tokens <= told.tokens <= sum(both)
    assert len(this_minute) <= told.requests <= len(both)


@given(
    st.integers(1, 1000),
    st.integers(0, 2000),
    st.integers(1, 1000),
    st.integers(1, 1000),
)
def test_a_grant_is_at_least_what_is_needed_and_never_more_than_is_left(
    per_day: int, spent: int, least: int, more: int
) -> None:
    asks = Asks(least_tokens=least, requests=1, tokens=least + more)
    left = per_day - spent
    try:
        granted = grant(asks, Budget(tokens_per_day=per_day), Spent(1, 0, spent))
    except QuotaError:
        assert left < least
    else:
        assert granted is not None
        assert granted.tokens == min(left, least + more) >= least


def test_no_budget_grants_nothing_and_a_budget_wants_to_be_asked() -> None:
    assert grant(None, Budget(), Spent()) is None
    with pytest.raises(RefusedError) as refused:
        grant(None, Budget(tokens_per_day=1), Spent())
    assert refused.value.field == "asks"


class Days(RuleBasedStateMachine):
    """A ledger through days, crashes and restarts, against a plain account of every session.

    The ledger may say more than the account while the notary restarts, never less, and on each day it says exactly as much.
    """

    PER_DAY = 100

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger("node-1", "b" * 32)
        self.at = NOON
        self.number = 0
        self.sessions: dict[str, list[int]] = {}  # receipt: day, tokens it counts for
        self.open_ones: dict[str, int] = {}

    @property
    def day(self) -> int:
        return self.at.date().toordinal()

    def counted(self, day: int) -> int:
        return sum(tokens for opened, tokens in self.sessions.values() if opened == day)

    @rule(hours=st.integers(0, 30))
    def time_passes(self, hours: int) -> None:
        self.at += timedelta(hours=hours)

    @rule(tokens=st.integers(1, 60), least=st.integers(1, 10))
    def open(self, tokens: int, least: int) -> None:
        stage = Stage(self.ledger)
        asks = Asks(least_tokens=min(least, tokens), requests=1, tokens=tokens)
        spent = stage.spent_by("a" * 64).on(self.day)
        left = self.PER_DAY - self.counted(self.day)
        try:
            granted = grant(asks, Budget(tokens_per_day=self.PER_DAY), spent)
        except QuotaError:
            assert left < asks.least_tokens
            return
        assert granted is not None
        assert granted.tokens == min(tokens, left)
        self.number += 1
        receipt = f"{self.number:032x}"
        stage.open(
            OpenRecord(
                client="a" * 64,
                receipt=receipt,
                opened_at=timestamp(self.at),
                opening=Opening.parse(OPENING),
                granted=granted,
            )
        )
        stage.commit()
        self.sessions[receipt] = [self.day, granted.tokens]
        self.open_ones[receipt] = granted.tokens

    @precondition(lambda self: self.open_ones)
    @rule(data=st.data(), lost=st.booleans())
    def end(self, data: st.DataObject, lost: bool) -> None:
        receipt = data.draw(st.sampled_from(sorted(self.open_ones)))
        granted = self.open_ones.pop(receipt)
        used = data.draw(st.integers(0, granted))
        stage = Stage(self.ledger)
        draft = Draft.parse({**DRAFT, "prompt_tokens": 0, "completion_tokens": used})
        stage.close("a" * 64, receipt, lost_draft(End.CRASHED) if lost else draft, timestamp(self.at))
        stage.commit()
        if not lost:
            self.sessions[receipt][1] = used

    @rule()
    def segment_begins_and_all_before_is_dropped(self) -> None:
        fresh = Ledger("node-1", "b" * 32, heads=self.ledger.heads, spent=self.ledger.settled())
        for record in self.ledger.open.values():
            fresh.replay_open(record)
        fresh.replay_held()
        self.ledger = fresh

    @invariant()
    def no_day_has_more_than_its_budget(self) -> None:
        assert self.counted(self.day) <= self.PER_DAY

    @invariant()
    def the_ledger_says_what_the_account_says(self) -> None:
        spent = self.ledger.spent.get("a" * 64, Spent())
        if spent.day == self.day:
            assert spent.tokens == self.counted(self.day)
        else:
            assert self.counted(self.day) == 0


TestDays = Days.TestCase


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001 - made aware below
def test_a_day_is_one_of_utc(moment: datetime) -> None:
    assert date.fromordinal(day_of(timestamp(moment.replace(tzinfo=UTC)))) == moment.date()


def test_no_file_of_the_notary_holds_more_than_counts(paths: NodePaths, clock: Clock) -> None:
    async def scenario() -> None:
        async with World(paths, tokens_per_day=100) as world:
            await world.close(await world.open(30), 20)

    asyncio.run(scenario())
    journal = Path(paths.notary / "journal" / f"{1:012}.frames").read_bytes()
    assert journal.count(b'"granted":{"tokens":30}') == 1

"""Budgets of a day in a cell: what a session asks for, and that it never uses more than it was granted."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_cell import RunningCell, StartCell, ask

from appliance.core.bundle import Limits
from inference.cell.sessions import _until_midnight_s

CHAT = "/v1/chat/completions"


def error(response: httpx.Response) -> dict[str, Any]:
    return dict(response.json()["error"])


def asked(cell: RunningCell) -> list[Any]:
    lines = [json.loads(line) for line in cell.notary.lines]
    return [line.get("asks") for line in lines if line["op"] == "open"]


@pytest.fixture
def budgeted(start_cell: StartCell) -> RunningCell:
    """A cell whose answers never end by themselves, of a client with a budget."""
    cell = start_cell(limits=Limits(tokens_per_day=9000, requests_per_day=90, sessions=3, answer_tokens=64))
    cell.engine.answer = None
    return cell


def test_a_session_of_one_request_asks_for_what_that_can_use(budgeted: RunningCell) -> None:
    budgeted.notary.grants = [{"requests": 1, "tokens": 1000}]
    with budgeted.client() as client:
        usage = client.post(CHAT, json=ask(max_tokens=10)).json()["usage"]
    prompt = usage["prompt_tokens"]
    assert asked(budgeted) == [{"least_tokens": prompt + 1, "requests": 1, "tokens": prompt + 10}]
    assert usage["completion_tokens"] == 10


def test_without_a_budget_nothing_is_asked(cell: RunningCell) -> None:
    with cell.client() as client:
        assert client.post(CHAT, json=ask()).status_code == 200
    assert asked(cell) == [None]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choices", [1, 2])
def test_an_answer_ends_where_its_grant_does(budgeted: RunningCell, choices: int, stream: bool) -> None:
    budgeted.notary.grants = [{"requests": 1, "tokens": 20}]
    with budgeted.client() as client:
        client.post(CHAT, json=ask(n=choices, max_tokens=60, stream=stream))
    (draft,) = budgeted.notary.drafts.values()
    each = (20 - draft.prompt_tokens) // choices
    assert 1 <= each < 60
    assert draft.completion_tokens == choices * each


def test_a_budget_that_is_used_up_is_openais_insufficient_quota(budgeted: RunningCell) -> None:
    budgeted.notary.grants = []
    with budgeted.client() as client:
        for path, body in ((CHAT, ask()), ("/v1/sessions", {})):
            refused = client.post(path, json=body)
            assert refused.status_code == 429
            assert (error(refused)["code"], error(refused)["type"]) == (
                "insufficient_quota",
                "insufficient_quota",
            )
            assert 1 <= int(refused.headers["retry-after"]) <= 86_400
            assert refused.headers["x-should-retry"] == "false"
    assert budgeted.notary.opened == {}
    assert budgeted.engine.held == {}  # the streams were given back


def test_a_kept_session_asks_for_its_share_and_uses_no_more(budgeted: RunningCell) -> None:
    budgeted.notary.grants = [{"requests": 2, "tokens": 40}]
    with budgeted.client() as client:
        header = {"X-Session-Id": client.post("/v1/sessions").json()["id"]}
        assert asked(budgeted) == [{"least_tokens": 1, "requests": 30, "tokens": 3000}]
        first = client.post(CHAT, json=ask(max_tokens=10), headers=header).json()["usage"]["total_tokens"]
        second = client.post(CHAT, json=ask(max_tokens=60), headers=header).json()
        assert second["usage"]["total_tokens"] == 40 - first
        assert second["choices"][0]["finish_reason"] == "length"
        refused = client.post(CHAT, json=ask(max_tokens=1), headers=header)
        assert (refused.status_code, error(refused)["code"]) == (429, "insufficient_quota")
        receipt = client.delete(f"/v1/sessions/{header['X-Session-Id']}").json()["receipt"]["receipt"]
        assert receipt["prompt_tokens"] + receipt["completion_tokens"] == 40


def test_a_kept_session_s_requests_are_counted(budgeted: RunningCell) -> None:
    budgeted.notary.grants = [{"requests": 2}]
    with budgeted.client() as client:
        header = {"X-Session-Id": client.post("/v1/sessions").json()["id"]}
        statuses = [client.post(CHAT, json=ask(max_tokens=1), headers=header).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        # The session is still there, and another one asks anew.
        assert client.get(f"/v1/sessions/{header['X-Session-Id']}").status_code == 200


@given(st.floats(0, 4e9))
def test_the_wait_ends_at_midnight_and_is_never_nothing(now: float) -> None:
    wait_s = _until_midnight_s(now)
    assert 1 <= wait_s <= 86_400
    assert (now + wait_s) // 86_400 == now // 86_400 + 1

"""Kept sessions: what they hold, who may use them, and every way in which they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from running_cell import RunningCell, StartCell, ask, manifest, write_policy

from appliance.core.bundle import Limits
from appliance.core.receipt import Draft, SignedReceipt

CHAT = "/v1/chat/completions"


def open_session(client: httpx.Client, **body: Any) -> dict[str, str]:
    """Open a kept session and return the header that selects it."""
    response = client.post("/v1/sessions", json=body)
    assert response.status_code == 200, response.text
    return {"X-Session-Id": response.json()["id"]}


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def until_text(response: httpx.Response) -> Iterator[str]:
    """Read a stream until the first piece of text has come; return the lines that follow."""
    lines = response.iter_lines()
    next(line for line in lines if '"content":"' in line and '"role"' not in line)
    return lines


def test_a_kept_session_answers_any_device_of_its_client_and_ends_with_a_receipt(cell: RunningCell) -> None:
    with cell.client("laptop") as laptop, cell.client("phone") as phone:
        opened = laptop.post("/v1/sessions")
        described = opened.json()
        header = {"X-Session-Id": described["id"]}
        assert set(described) == {"id", "object", "expires_at", "model"}
        assert abs(described["expires_at"] - time.time() - 14_400) < 5
        receipt = opened.headers["x-receipt-id"]
        for client in (laptop, phone):
            answer = client.post(CHAT, json=ask(), headers=header)
            assert answer.headers["x-receipt-id"] == receipt
            assert "receipt" not in answer.json()
        stream = phone.post(CHAT, json=ask(stream=True), headers=header)
        assert ": receipt" not in stream.text
        assert stream.text.endswith("data: [DONE]\n\n")
        assert phone.get(f"/v1/sessions/{described['id']}").json() == described
        assert code(phone.get(f"/v1/receipts/{receipt}")) == "receipt_not_found"
        deleted = phone.delete(f"/v1/sessions/{described['id']}")
        assert deleted.json()["object"] == "session.deleted"
        signed = SignedReceipt.parse(deleted.json()["receipt"])
        assert SignedReceipt.parse_canonical(laptop.get(f"/v1/receipts/{receipt}").content) == signed
        assert code(laptop.post(CHAT, json=ask(), headers=header)) == "session_not_found"
        assert code(laptop.get(f"/v1/sessions/{described['id']}")) == "session_not_found"
    assert (signed.receipt.end, signed.receipt.requests, signed.receipt.completion_tokens) == (
        "deleted",
        3,
        15,
    )
    assert cell.engine.held == {}


def test_two_requests_at_once_on_one_session_are_one_too_many(cell: RunningCell) -> None:
    cell.engine.pace_s = 0.1
    with cell.client() as first, cell.client() as second:
        header = open_session(first)
        with first.stream("POST", CHAT, json=ask(stream=True), headers=header) as running:
            rest = until_text(running)
            refused = second.post(CHAT, json=ask(), headers=header)
            assert (refused.status_code, code(refused)) == (409, "session_busy")
            assert list(rest)[-2:] == ["data: [DONE]", ""]
        assert second.post(CHAT, json=ask(), headers=header).status_code == 200


def test_sessions_beyond_the_clients_limit_are_refused_until_one_ends(cell: RunningCell) -> None:
    with cell.client() as client:
        headers = [open_session(client) for _ in range(3)]
        refused = client.post(CHAT, json=ask())
        assert (refused.status_code, code(refused)) == (429, "too_many_sessions")
        assert refused.headers["retry-after"].isdigit()
        client.delete(f"/v1/sessions/{headers[0]['X-Session-Id']}")
        assert client.post(CHAT, json=ask()).status_code == 200


def test_no_free_stream_is_said_before_a_receipt_is_begun(start_cell: StartCell) -> None:
    cell = start_cell(models=(manifest(max_sessions=1),))
    with cell.client() as client:
        open_session(client)
        refused = client.post("/v1/sessions")
        assert (refused.status_code, code(refused)) == (503, "no_stream")
        assert "retry-after" in refused.headers
    assert len(cell.notary.opened) == 1


def waiting_for_a_stream(cell: RunningCell, client: httpx.Client) -> tuple[str, Future[httpx.Response]]:
    """Hold the only stream by a kept session, and let a request wait for it; return that session's path and the answer."""
    cell.engine.most_wait_s = 20.0
    held = open_session(client)["X-Session-Id"]

    def request() -> httpx.Response:
        with cell.client("phone") as phone:
            return phone.post(CHAT, json=ask())

    pool = ThreadPoolExecutor(1)
    answer = pool.submit(request)
    pool.shutdown(wait=False)
    until(lambda: cell.engine.waiting == 1)
    return f"/v1/sessions/{held}", answer


def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_request_waits_for_a_stream_and_gets_the_one_that_comes_free(start_cell: StartCell) -> None:
    cell = start_cell(models=(manifest(max_sessions=1),))
    with cell.client() as client:
        held, answer = waiting_for_a_stream(cell, client)
        assert len(cell.notary.opened) == 1
        client.delete(held)
        assert answer.result(5).status_code == 200
    assert cell.notary.await_ends(2) == ["deleted", "one_shot"]


def test_who_goes_away_while_waiting_waits_no_longer_and_opens_nothing(start_cell: StartCell) -> None:
    cell = start_cell(models=(manifest(max_sessions=1),), limits=Limits(sessions=2))
    cell.engine.most_wait_s = 20.0
    with cell.client() as client:
        open_session(client)
        with cell.client("phone") as phone, pytest.raises(httpx.ReadTimeout):
            phone.post(CHAT, json=ask(), timeout=0.3)
        until(lambda: cell.engine.waiting == 0)
        cell.engine.most_wait_s = 0.0
        # It counts against the client's sessions no more.
        assert code(client.post("/v1/sessions")) == "no_stream"
    assert len(cell.notary.opened) == 1


def test_a_cell_that_stops_sends_those_who_wait_away(start_cell: StartCell) -> None:
    cell = start_cell(models=(manifest(max_sessions=1),))
    with cell.client() as client:
        _, answer = waiting_for_a_stream(cell, client)
        cell.terminate()
        assert code(answer.result(5)) == "draining"
    assert cell.await_exit() == 0
    assert cell.notary.ends() == ["drained"]


def test_a_new_policys_limits_count_for_new_requests(cell: RunningCell) -> None:
    with cell.client() as client:
        assert client.post(CHAT, json=ask(max_tokens=60)).status_code == 200
        write_policy(cell.policy_file, generation=8, limits=Limits(sessions=1, answer_tokens=8))
        time.sleep(0.3)
        assert code(client.post(CHAT, json=ask(max_tokens=60))) == "max_tokens_too_large"
        open_session(client)
        assert code(client.post("/v1/sessions")) == "too_many_sessions"
    generations = [opening.runtime.generation for opening in cell.notary.opened.values()]
    assert generations == [7, 8]


def test_a_session_expires_idle_and_absolutely(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(session_idle_s=1, session_max_s=100))
    with cell.client() as client:
        idle = open_session(client)
        assert cell.notary.await_ends(1) == ["expired"]
        assert code(client.post(CHAT, json=ask(), headers=idle)) == "session_not_found"
        write_policy(cell.policy_file, limits=Limits(session_idle_s=100, session_max_s=100, answer_tokens=64))
        time.sleep(0.3)
        open_session(client, ttl_s=1)
        assert cell.notary.await_ends(2) == ["expired", "expired"]


def test_a_request_that_runs_when_its_session_expires_is_told_so(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(session_idle_s=100))
    cell.engine.pace_s, cell.engine.answer = 0.05, None
    with cell.client() as client:
        header = open_session(client, ttl_s=1)
        text = client.post(CHAT, json=ask(stream=True), headers=header).text
    assert '"code":"session_ended"' in text
    assert text.endswith("data: [DONE]\n\n")
    assert cell.notary.await_ends(1) == ["expired"]


def test_deleting_a_session_stops_what_runs_on_it(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as first, cell.client() as second:
        header = open_session(first)
        with first.stream("POST", CHAT, json=ask(stream=True), headers=header) as running:
            lines = running.iter_lines()
            next(lines)
            deleted = second.delete(f"/v1/sessions/{header['X-Session-Id']}")
            assert deleted.status_code == 200
            assert any('"code":"session_ended"' in line for line in lines)
    assert cell.engine.held == {}


def test_a_disconnect_ends_a_one_shot_session_but_only_the_request_of_a_kept_one(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as keeping:
        header = open_session(keeping)
        for extra in ({}, header):
            with (
                cell.client() as leaving,
                leaving.stream("POST", CHAT, json=ask(stream=True), headers=extra) as running,
            ):
                until_text(running)
        assert cell.notary.await_ends(1) == ["disconnected"]
        cell.engine.answer = "still here"
        until = time.monotonic() + 2
        while (answer := keeping.post(CHAT, json=ask(), headers=header)).status_code == 409:
            assert time.monotonic() < until
        assert answer.json()["choices"][0]["message"]["content"] == "still here"
    assert len(cell.engine.held) == 1


def test_a_client_that_leaves_before_a_whole_answer_ends_its_session(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.05, None
    with cell.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=ask(), timeout=0.3)
    assert cell.notary.await_ends(1) == ["disconnected"]
    assert cell.engine.held == {}


def test_a_client_that_leaves_while_its_session_opens_leaves_no_open_record(cell: RunningCell) -> None:
    cell.notary.may_open.clear()
    with cell.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=ask(), timeout=0.2)
    time.sleep(0.1)
    cell.notary.may_open.set()
    assert cell.notary.await_ends(1) == ["disconnected"]
    assert (cell.engine.decoded, cell.engine.held) == (0, {})


def test_sessions_of_the_same_shape_have_equal_drafts(cell: RunningCell) -> None:
    with cell.client() as client:
        for content in ("my name is alice", "xx yyyy zz wwwww"):
            client.post(CHAT, json=ask(content))
    first, second = cell.notary.drafts.values()
    assert first == second
    assert isinstance(first, Draft)


def test_sessions_of_another_shape_have_another_draft(cell: RunningCell) -> None:
    """The control of the test above: the comparison can tell drafts apart."""
    with cell.client() as client:
        for content in ("my name is alice", "my name is not alice"):
            client.post(CHAT, json=ask(content))
    first, second = cell.notary.drafts.values()
    assert first != second


def test_many_sessions_at_once_answer_each_its_own(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(sessions=16), models=(manifest(max_sessions=16),))
    cell.engine.pace_s = 0.005
    results: list[tuple[int, int]] = []

    def one(words: int) -> None:
        with cell.client() as client:
            for _ in range(3):
                answer = client.post(CHAT, json=ask("w " * words)).json()
                results.append((words, answer["usage"]["prompt_tokens"]))

    threads = [threading.Thread(target=one, args=(words,)) for words in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 36
    assert all(counted == words + 1 for words, counted in results)
    assert cell.notary.ends() == ["one_shot"] * 36
    assert cell.engine.held == {}

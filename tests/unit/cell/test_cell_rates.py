"""Rates of a client: what the buckets let through, and how a cell says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_cell import RunningCell, StartCell, ask, credentials, write_policy

from appliance.core.budget import Used
from appliance.core.bundle import Limits
from inference.cell.errors import Refusal
from inference.cell.rates import Bucket, Rates, render_duration

CHAT = "/v1/chat/completions"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def error(response: httpx.Response) -> dict[str, object]:
    return dict(response.json()["error"])


# --- Buckets ---------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 90), st.integers(0, 400)), min_size=1, max_size=40),
)
def test_over_any_time_no_more_passes_than_a_bucket_and_what_it_got(
    capacity: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = Bucket(capacity, clock)
    taken: list[tuple[float, int]] = []
    for pause_s, amount in steps:
        clock.now += pause_s
        if bucket.wait_s(amount) == 0:
            bucket.take(amount)
            taken.append((clock.now, amount))
    for start, (began, _) in enumerate(taken):
        for ended, _ in taken[start:]:
            total = sum(amount for at, amount in taken[start:] if at <= ended)
            assert total <= capacity * (1 + (ended - began) / 60) + 1e-6 * capacity


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_the_wait_that_is_told_is_enough_and_no_longer_than_needed(
    capacity: int, before: int, amount: int
) -> None:
    clock = Clock()
    bucket = Bucket(capacity, clock)
    bucket.take(min(before, capacity))
    wait_s = bucket.wait_s(amount)
    assert (wait_s == float("inf")) == (amount > capacity)
    if 0 < wait_s < float("inf"):
        clock.now += wait_s * 0.99
        assert bucket.wait_s(amount) > 0
        clock.now += wait_s * 0.01 + 1e-6
        assert bucket.wait_s(amount) == 0


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 500))
def test_other_limits_forget_nothing_that_was_used(first: int, second: int, used: int) -> None:
    clock = Clock()
    bucket = Bucket(first, clock)
    bucket.take(min(used, first))
    bucket.capacity = second
    assert bucket.left == max(0, second - min(used, first, second))
    clock.now += 60
    assert bucket.left == second


def test_what_was_not_used_is_given_back_and_never_more_than_was_taken() -> None:
    rates = Rates(Limits(tokens_per_minute=100), Clock())
    rates.reserve(90)
    with pytest.raises(Refusal):
        rates.reserve(20)
    rates.settle(90, 30)
    rates.reserve(70)
    rates.settle(70, 0)
    rates.settle(0, 0)
    assert dict(rates.headers())[b"x-ratelimit-remaining-tokens"] == b"70"


def test_a_client_without_rates_is_neither_limited_nor_told_any() -> None:
    rates = Rates(Limits(), Clock())
    for _ in range(1000):
        rates.take_request()
        rates.reserve(10**9)
    assert list(rates.headers()) == []


def test_what_was_used_before_the_cell_counts_up_to_a_whole_bucket() -> None:
    clock = Clock()
    rates = Rates(Limits(requests_per_minute=10, tokens_per_minute=100), clock)
    rates.count(Used(requests=4, tokens=10**6))
    told = dict(rates.headers())
    assert told[b"x-ratelimit-remaining-requests"] == b"6"
    assert told[b"x-ratelimit-remaining-tokens"] == b"0"
    clock.now += 60
    assert dict(rates.headers())[b"x-ratelimit-remaining-tokens"] == b"100"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0166, "17ms"), (1, "1s"), (1.2, "2s"), (59.5, "1m0s"), (60, "1m0s"), (360, "6m0s")],
)
def test_durations_are_spelled_as_the_openai_api_spells_them(seconds: float, text: str) -> None:
    assert render_duration(seconds) == text


# --- In a cell -------------------------------------------------------------------------------------------------


def test_requests_beyond_the_rate_get_openais_error_and_when_to_come_again(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(requests_per_minute=3))
    with cell.client() as client:
        told = [client.post(CHAT, json=ask()) for _ in range(4)]
        assert [response.status_code for response in told] == [200, 200, 200, 429]
        assert [response.headers["x-ratelimit-remaining-requests"] for response in told] == list("2100")
        refused = told[-1]
        assert error(refused) == {
            "message": "Rate limit reached: requests per minute.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert refused.headers["x-ratelimit-reset-requests"] in ("59s", "1m0s")
        assert "x-ratelimit-limit-tokens" not in refused.headers
        # What brings no content and opens nothing is free, and every other door is counted too.
        assert client.get("/v1/models").status_code == 200
        for path, body in (
            ("/v1/completions", {"model": "tiny", "prompt": "a"}),
            ("/tokenize", {"content": "a"}),
            ("/detokenize", {"tokens": [1]}),
            ("/v1/sessions", {}),
        ):
            assert client.post(path, json=body).status_code == 429, path
    assert len(cell.notary.opened) == 3


def test_the_devices_of_a_client_share_its_rate(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(requests_per_minute=2))
    with cell.client("laptop") as laptop, cell.client("phone") as phone:
        assert laptop.post(CHAT, json=ask()).status_code == 200
        assert phone.post(CHAT, json=ask()).status_code == 200
        assert laptop.post(CHAT, json=ask()).status_code == 429


def test_whoever_is_not_admitted_learns_and_uses_no_rate(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(requests_per_minute=1))
    with cell.client(Authorization="Bearer wrong") as stranger:
        refused = stranger.post(CHAT, json=ask())
        assert refused.status_code == 401
        assert not [name for name in refused.headers if name.startswith("x-ratelimit")]
    with cell.client() as client:
        assert client.post(CHAT, json=ask()).status_code == 200


def test_a_request_takes_what_it_may_use_and_gives_back_what_it_did_not(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(tokens_per_minute=100, answer_tokens=64))
    with cell.client() as client:
        answer = client.post(CHAT, json=ask(max_tokens=50))
        used = answer.json()["usage"]["total_tokens"]
        prompt = answer.json()["usage"]["prompt_tokens"]
        assert answer.headers["x-ratelimit-remaining-tokens"] == str(100 - prompt - 50)
        left = int(client.get("/v1/models").headers["x-ratelimit-remaining-tokens"])
        assert left == pytest.approx(100 - used, abs=2)
        assert used < prompt + 50


def test_tokens_beyond_the_rate_are_refused_before_anything_is_opened(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(tokens_per_minute=60, answer_tokens=64))
    cell.engine.answer = None
    with cell.client() as client:
        assert client.post(CHAT, json=ask(max_tokens=40)).status_code == 200
        refused = client.post(CHAT, json=ask(max_tokens=40))
        assert (refused.status_code, error(refused)["type"], error(refused)["code"]) == (
            429,
            "tokens",
            "rate_limit_exceeded",
        )
        assert int(refused.headers["retry-after"]) >= 1
        # One that no waiting helps is told so, and the SDK does not try again.
        large = client.post(CHAT, json=ask(max_tokens=60))
        assert error(large)["code"] == "rate_limit_exceeded"
        assert "retry-after" not in large.headers
        assert large.headers["x-should-retry"] == "false"
    assert len(cell.notary.opened) == 1


def test_a_length_that_nobody_asked_for_shrinks_to_the_rate(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(tokens_per_minute=30, answer_tokens=64))
    cell.engine.answer = None
    with cell.client() as client:
        answer = client.post(CHAT, json=ask())
        assert answer.json()["usage"]["total_tokens"] == 30
        assert answer.json()["choices"][0]["finish_reason"] == "length"


def test_a_request_that_is_refused_later_or_broken_off_gives_its_tokens_back(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(tokens_per_minute=1000, answer_tokens=64))
    cell.notary.refuse = {"open"}
    with cell.client() as client:
        assert client.post(CHAT, json=ask()).status_code == 503
        assert client.get("/v1/models").headers["x-ratelimit-remaining-tokens"] == "1000"


def test_other_limits_are_in_force_without_a_restart(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(requests_per_minute=1))
    with cell.client() as client:
        assert client.post(CHAT, json=ask()).status_code == 200
        assert client.post(CHAT, json=ask()).status_code == 429
        write_policy(cell.policy_file, generation=8, limits=Limits())
        _until(lambda: client.post(CHAT, json=ask()).status_code == 200)
        assert not [name for name in client.get("/v1/models").headers if name.startswith("x-ratelimit")]


def test_a_fresh_cell_begins_where_the_one_before_ended(start_cell: StartCell) -> None:
    for used, status in ((0, 200), (5, 429)):
        cell = start_cell(started=False, limits=Limits(requests_per_minute=5))
        cell.notary.used = {"requests": used, "tokens": 0}
        cell.start()
        with cell.client() as client:
            assert client.post(CHAT, json=ask()).status_code == status


def test_a_cell_without_rates_asks_nobody_for_them(cell: RunningCell) -> None:
    with cell.client() as client:
        client.post(CHAT, json=ask())
    assert "recent" not in [json.loads(line)["op"] for line in cell.notary.lines]


def test_the_client_s_context_is_smaller_than_the_model_s(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(context_tokens=20, answer_tokens=64))
    cell.engine.answer = None
    with cell.client() as client:
        assert client.post(CHAT, json=ask()).json()["usage"]["total_tokens"] == 20
        refused = client.post(CHAT, json=ask(max_tokens=20))
        assert (refused.status_code, error(refused)["code"]) == (400, "context_length_exceeded")
    wide = start_cell(limits=Limits(answer_tokens=64))  # the positive control
    with wide.client() as client:
        assert client.post(CHAT, json=ask(max_tokens=20)).status_code == 200


def test_many_at_once_are_counted_one_by_one(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(requests_per_minute=5, sessions=16))
    with cell.client() as client, ThreadPoolExecutor(12) as pool:
        statuses = list(
            pool.map(lambda _: client.post("/tokenize", json={"content": "a"}).status_code, range(12))
        )
    assert (statuses.count(200), statuses.count(429)) == (5, 7)


def test_the_openai_sdk_knows_the_error_and_its_headers(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(requests_per_minute=1))
    with (
        cell.client() as http,
        openai.OpenAI(
            api_key=credentials()["Authorization"].removeprefix("Bearer "),
            base_url="http://cell/v1",
            http_client=http,
            default_headers={"X-Peer-Address": credentials()["X-Peer-Address"]},
            max_retries=0,
        ) as sdk,
    ):
        messages = [{"role": "user", "content": "hello"}]
        raw = sdk.chat.completions.with_raw_response.create(model="tiny", messages=messages)  # type: ignore[call-overload]
        assert raw.headers["x-ratelimit-limit-requests"] == "1"
        with pytest.raises(openai.RateLimitError) as limited:
            sdk.chat.completions.create(model="tiny", messages=messages)  # type: ignore[call-overload]
        assert limited.value.code == "rate_limit_exceeded"


def _until(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 3
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

"""The whole bench in seconds, with fake servers in the place of real ones."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
from serve_world import MODEL, FakeServer, start_fake

from appliance.bench.serve import rounds
from appliance.bench.serve.cases import Case, choose
from appliance.bench.serve.client import BenchPeerError, Endpoint, ask
from appliance.bench.serve.plans import Ours, Peer
from appliance.bench.serve.prompts import Prompts
from appliance.bench.serve.render import render_json, render_lines, render_plots
from appliance.bench.serve.running import Servers
from appliance.bench.serve.serve import measure_cases
from appliance.bench.serve.workloads import Chat, LongPrompt, Retrieval, Run, Streams, Workload

USER = [{"role": "user", "content": "some words"}]


@pytest.fixture(autouse=True)
def no_threads_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_SETTLE_S", 0.0)


def drive(workload: Workload, count: int = 1, **knobs: float) -> tuple[Run, list[FakeServer]]:
    async def run() -> tuple[Run, list[FakeServer]]:
        servers = [FakeServer(**knobs) for _ in range(count)]
        async with servers[0].listen() as first, servers[-1].listen() as last:
            paths = [first, last][:count]
            endpoints = tuple(Endpoint(path, sessions=True) for path in paths)
            return await workload(Servers(endpoints, ()), Prompts(1, 0)), servers

    return asyncio.run(run())


def test_cases_are_measured_in_alternation_and_judged() -> None:
    said: list[str] = []
    cases = choose(["streams-1", "streams-8"], full=False)
    measured = measure_cases(cases, 2, lambda _case: MODEL, start=start_fake, report=said.append)
    assert [line.rpartition(": ")[2] for line in said if "streams-1," in line] == [
        "streams-1, ours",
        "streams-1, tuned",
        "streams-1, default",
        "streams-1, tuned",
        "streams-1, default",
        "streams-1, ours",
    ]
    checks = {check.name: check for check in measured.report.checks}
    speed = checks["8 streams, tokens/s vs tuned"]
    assert speed.ok
    assert 1.2 < speed.value < 2.2
    assert checks["tokens counted, sides apart at most"].value == 0.0
    assert measured.report.control_ok


def test_the_report_is_json_and_a_table() -> None:
    cases = choose(["streams-1", "streams-4"], full=False)
    measured = measure_cases(cases, 1, lambda _case: MODEL, start=start_fake, report=lambda _: None)
    value = json.loads(json.dumps(render_json(measured), allow_nan=False))
    assert value.keys() == {"ok", "checks", "control", "figures"}
    assert {(row["case"], row["side"]) for row in value["figures"]} >= {("streams-4", "default")}
    lines = render_lines(measured)
    assert any("1 stream, decode tokens/s vs tuned" in line and "at least 0.98" in line for line in lines)
    assert any(line.strip().startswith("control:") or "control:" in line for line in lines)
    assert set(render_plots(measured)) == {"tokens-per-s.svg", "ttft-ms.svg", "gap-p99-ms.svg"}


def test_fewer_than_two_numbers_of_streams_are_no_plot() -> None:
    cases = choose(["none"], full=False)
    measured = measure_cases(cases, 1, lambda _case: MODEL, start=start_fake, report=lambda _: None)
    assert render_plots(measured) == {}


def test_what_was_not_measured_is_null_in_json() -> None:
    sides = {"ours": Ours(1, 2048), "tuned": Peer(1, 2048, tuned=True)}
    whole = Case("retrieval", "whole answers", sides, Retrieval(2, stream=False), shipped=True)
    cases = [whole, *choose(["none"], full=False)]
    measured = measure_cases(cases, 1, lambda _case: MODEL, start=start_fake, report=lambda _: None)
    figures = next(row for row in render_json(measured)["figures"] if row["case"] == "retrieval")
    assert figures["gap_p99_ms"] is None
    assert math.isfinite(figures["tokens_per_s"])


def test_streams_are_dealt_to_the_cells_in_turn() -> None:
    run, servers = drive(Streams(4, 2), count=2)
    assert len(run.answers) == 8
    assert [len(server.requests) for server in servers] == [4, 4]
    assert all(answer.prompt_tokens == 128 for answer in run.answers)


def test_a_conversation_sends_its_history_and_keeps_its_session() -> None:
    run, (server,) = drive(Chat(sessions=2, at_once=1))
    chats = [(headers, body) for path, headers, body in server.requests if path.endswith("completions")]
    assert len(chats) == len(run.answers) == 12
    assert len(run.waited) == 10
    assert all(headers["x-session-id"] == "session" for headers, _ in chats)
    longest = max((body["messages"] for _, body in chats), key=len)
    assert [message["role"] for message in longest] == ["user", "assistant"] * 5 + ["user"]
    assert longest[1]["content"].startswith("word")
    assert [path for path, _, _ in server.requests].count("/v1/sessions/session") == 2


def test_the_long_prompt_comes_when_all_streams_have_begun() -> None:
    run, (server,) = drive(LongPrompt(running=2))
    *_, (_, _, late) = server.requests
    assert len(late["messages"][0]["content"].split()) == 4092
    assert run.window is not None
    (waited,) = run.waited
    assert run.window.start == waited.sent_at
    assert run.window.stop == waited.times[0]
    assert all(answer.times[6] < run.window.start < answer.times[-1] for answer in run.answers)


def test_the_first_text_is_what_ends_the_wait() -> None:
    async def run() -> None:
        server = FakeServer(gap_s=0.03)
        async with server.listen() as path:
            answer = await ask(Endpoint(path), USER, 3)
        assert answer.tokens == len(answer.times) == 3
        assert answer.times[0] - answer.sent_at > 0.025  # the role came at once and is no text
        assert answer.text == " word word word"

    asyncio.run(run())


@pytest.mark.parametrize("knobs", [{"status": 503}, {"breaks": 2}])
def test_a_server_that_fails_ends_the_run(knobs: dict[str, int]) -> None:
    async def run() -> None:
        server = FakeServer()
        for name, value in knobs.items():
            setattr(server, name, value)
        async with server.listen() as path:
            with pytest.raises(BenchPeerError):
                await ask(Endpoint(path), USER, 4)

    asyncio.run(run())

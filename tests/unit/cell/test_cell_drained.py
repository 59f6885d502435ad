"""A drained node: what is open goes on, nothing is opened, and clients are told when to come again."""

from __future__ import annotations

import time

import pytest
from running_cell import RunningCell, StartCell, ask, write_policy
from test_cell_sessions import code, open_session, until_text

from inference.cell import main

CHAT = "/v1/chat/completions"


def drain(cell: RunningCell, draining: bool = True) -> None:
    write_policy(cell.policy_file, generation=8 if draining else 9, draining=draining)
    time.sleep(0.3)


def test_open_sessions_go_on_and_none_is_opened(cell: RunningCell) -> None:
    with cell.client() as client:
        kept = open_session(client)
        assert client.post(CHAT, json=ask()).status_code == 200  # positive control
        drain(cell)
        assert client.post(CHAT, json=ask(), headers=kept).status_code == 200
        for refused in (client.post(CHAT, json=ask()), client.post("/v1/sessions")):
            assert (refused.status_code, code(refused)) == (503, "node_drained")
            assert refused.headers["retry-after"] == "30"
        assert client.get("/v1/models").status_code == 200
        assert client.delete(f"/v1/sessions/{kept['X-Session-Id']}").status_code == 200
    assert cell.notary.await_ends(2) == ["one_shot", "deleted"]


def test_an_answer_that_is_being_written_is_finished(cell: RunningCell) -> None:
    cell.engine.pace_s = 0.05
    with cell.client() as client, client.stream("POST", CHAT, json=ask(stream=True)) as running:
        lines = until_text(running)
        drain(cell)
        assert "data: [DONE]" in list(lines)
    assert cell.notary.await_ends(1) == ["one_shot"]


def test_a_node_that_serves_again_opens_sessions_again(cell: RunningCell) -> None:
    with cell.client() as client:
        drain(cell)
        assert code(client.post(CHAT, json=ask())) == "node_drained"
        drain(cell, draining=False)
        assert client.post(CHAT, json=ask()).status_code == 200


def test_a_cell_that_starts_on_a_drained_node_loads_no_model(
    start_cell: StartCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_APOLOGY_S", 1.0)
    cell = start_cell(draining=True)
    with cell.client() as client:
        refused = client.post(CHAT, json=ask())
    assert (refused.status_code, code(refused)) == (503, "node_drained")
    assert refused.headers["retry-after"] == "30"
    assert cell.await_exit(5) == 0
    assert not cell.is_serving()

"""Ends of keys and clients in a cell: told ahead, kept to the second, and in the receipts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from running_cell import ADDRESSES, TOKENS, StartCell, ask, device, write_policy

from appliance.client.api import Answer, Api
from appliance.client.chat import expiry_warning
from inference.cell.policy_file import ClientRevokedError, PolicyFile

CHAT = "/v1/chat/completions"


def laptop_until(end: int | None) -> tuple[object, ...]:
    return device("laptop").model_copy(update={"expires_at": end}), device("phone")


def soon(seconds: float = 1.5) -> int:
    return int(time.time() + seconds) + 1


def await_end(end: int) -> None:
    time.sleep(max(0.0, end - time.time()) + 0.3)


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def test_every_answer_says_when_the_access_ends_and_only_to_whom_it_does(start_cell: StartCell) -> None:
    end = int(time.time()) + 3600
    cell = start_cell(devices=laptop_until(end))
    with cell.client("laptop") as laptop, cell.client("phone") as phone:
        told = laptop.get("/v1/models").headers["x-access-expires-at"]
        assert datetime.fromisoformat(told) == datetime.fromtimestamp(end, UTC)
        assert laptop.post(CHAT, json=ask(stream=True)).headers["x-access-expires-at"] == told
        assert "x-access-expires-at" not in phone.get("/v1/models").headers
        write_policy(cell.policy_file, generation=8, devices=laptop_until(end), expires_at=end - 60)
        time.sleep(0.3)
        for client in (laptop, phone):  # the client ends first
            told = client.get("/v1/models").headers["x-access-expires-at"]
            assert datetime.fromisoformat(told) == datetime.fromtimestamp(end - 60, UTC)


def test_a_key_s_end_stops_its_request_and_leaves_the_other_device_alone(start_cell: StartCell) -> None:
    end = soon()
    cell = start_cell(devices=laptop_until(end))
    cell.engine.answer, cell.engine.pace_s = None, 0.05
    with cell.client("laptop") as laptop, cell.client("phone") as phone:
        with laptop.stream("POST", CHAT, json=ask(stream=True, max_tokens=64)) as stream:
            text = "".join(stream.iter_text())
        assert time.time() < end + 1
        assert "session_ended" in text
        assert ": receipt" in text  # the client takes it home
        assert cell.notary.await_ends(1) == ["expired"]
        refused = laptop.get("/v1/models")
        assert (refused.status_code, code(refused)) == (401, "key_expired")
        assert phone.get("/v1/models").status_code == 200


def test_only_the_right_token_is_told_that_a_key_has_expired(start_cell: StartCell) -> None:
    cell = start_cell(devices=laptop_until(int(time.time()) - 1))
    with cell.client("laptop", Authorization="Bearer wrong") as guesser:
        assert code(guesser.get("/v1/models")) == "invalid_api_key"
    with cell.client("laptop") as laptop:
        assert code(laptop.get("/v1/models")) == "key_expired"


def test_a_kept_session_of_an_expired_key_ends_with_a_receipt_that_says_so(start_cell: StartCell) -> None:
    end = soon()
    cell = start_cell(devices=laptop_until(end))
    with cell.client("laptop") as laptop, cell.client("phone") as phone:
        laptop.post("/v1/sessions")
        kept = phone.post("/v1/sessions").json()["id"]
        await_end(end)
        assert cell.notary.await_ends(1) == ["expired"]
        # The agent takes it out of the policy later; the receipt said `expired` by then.
        write_policy(cell.policy_file, generation=8, devices=(device("phone"),))
        time.sleep(0.3)
        assert cell.notary.ends() == ["expired"]
        assert phone.get(f"/v1/sessions/{kept}").status_code == 200


def test_a_client_s_end_ends_its_cell_with_receipts_that_say_so(start_cell: StartCell) -> None:
    cell = start_cell(expires_at=soon())
    with cell.client() as client:
        client.post("/v1/sessions")
        assert cell.await_exit(5) == 0
    assert cell.notary.ends() == ["expired"]


def test_a_client_that_is_revoked_before_its_end_is_revoked(start_cell: StartCell) -> None:
    cell = start_cell(expires_at=int(time.time()) + 3600)
    with cell.client() as client:
        client.post("/v1/sessions")
        write_policy(cell.policy_file, generation=8, revoked=True)
        assert cell.await_exit(5) == 0
    assert cell.notary.ends() == ["revoked"]


def test_another_end_cuts_nobody_off(start_cell: StartCell) -> None:
    cell = start_cell(devices=laptop_until(int(time.time()) + 600))
    with cell.client() as client:
        kept = client.post("/v1/sessions").json()["id"]
        write_policy(cell.policy_file, generation=8, devices=laptop_until(None))
        time.sleep(0.3)
        assert client.get(f"/v1/sessions/{kept}").status_code == 200
        write_policy(cell.policy_file, generation=9, devices=(device("phone"),))  # the positive control
        assert cell.notary.await_ends(1) == ["revoked"]


def test_an_end_is_met_to_the_second(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    write_policy(file, devices=laptop_until(1000), expires_at=2000)
    now = 999.0
    policy = PolicyFile(file, "acme", clock=lambda: now)
    assert policy.ended() == frozenset()
    now = 1000.0
    assert policy.ended() == {device("laptop").credential}
    assert policy.refresh() is None
    now = 2000.0
    with pytest.raises(ClientRevokedError) as gone:
        policy.refresh()
    assert gone.value.expired
    with pytest.raises(ClientRevokedError):
        PolicyFile(file, "acme", clock=lambda: now)


def test_the_terminal_chat_is_told_and_warns_two_weeks_ahead(start_cell: StartCell) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert expiry_warning(None, now) is None
    assert expiry_warning(now + timedelta(days=14, seconds=1), now) is None
    assert "2026-12-05 at 00:00 UTC" in str(expiry_warning(now + timedelta(days=14), now))

    end = int(time.time()) + 3600
    cell = start_cell(devices=laptop_until(end))
    folder: Any = SimpleNamespace(token=TOKENS["laptop"])
    for name, expected in (("laptop", datetime.fromtimestamp(end, UTC)), ("phone", None)):
        folder.token = TOKENS[name]
        api = Api(
            folder,
            base_url="http://cell/v1",
            transport=httpx.HTTPTransport(uds=str(cell.path)),
            headers={"X-Peer-Address": ADDRESSES[name]},
        )
        answer = Answer()
        list(api.chat([{"role": "user", "content": "hello"}], answer))
        api.close()
        assert answer.access_expires_at == expected

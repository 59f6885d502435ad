"""How a cell's life ends: cut off, drained, idle, or because it cannot be trusted any more."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from running_cell import RunningCell, StartCell, ask, device, manifest, write_policy
from test_cell_receipts import wait_for
from test_cell_sessions import code, open_session, until_text

from appliance.core.bundle import Limits
from inference.cell import keeper

CHAT = "/v1/chat/completions"


def test_a_device_that_was_cut_off_gets_no_more_bytes_and_its_sessions_end(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client("laptop") as laptop, cell.client("phone") as phone:
        kept = open_session(laptop)
        other = open_session(phone)
        with laptop.stream("POST", CHAT, json=ask(stream=True)) as running:
            lines = until_text(running)
            write_policy(cell.policy_file, generation=8, devices=(device("phone"),))
            started = time.monotonic()
            rest: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):
                rest.extend(lines)
            assert time.monotonic() - started < 1
        assert "[DONE]" not in "".join(rest)
        assert ": receipt" not in "".join(rest)
        assert sorted(cell.notary.await_ends(2)) == ["revoked", "revoked"]
        assert code(laptop.get("/v1/models")) == "invalid_api_key"
        assert code(phone.post(CHAT, json=ask(), headers=kept)) == "session_not_found"
        cell.engine.answer = "ok"
        assert phone.post(CHAT, json=ask(), headers=other).status_code == 200


def test_a_device_with_a_new_token_loses_what_the_old_one_opened(cell: RunningCell) -> None:
    changed = device("laptop").model_copy(update={"token_sha256": "0" * 64})
    with cell.client() as client:
        open_session(client)
        write_policy(cell.policy_file, devices=(changed, device("phone")))
        assert cell.notary.await_ends(1) == ["revoked"]
        assert code(client.get("/v1/models")) == "invalid_api_key"


def test_a_request_that_waits_when_its_device_is_cut_off_is_refused(cell: RunningCell) -> None:
    cell.notary.may_open.clear()
    with cell.client() as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, CHAT, json=ask())
        wait_for(lambda: bool(cell.notary.lines))
        write_policy(cell.policy_file, devices=(device("phone"),))
        time.sleep(0.3)
        cell.notary.may_open.set()
        assert code(waiting.result(5)) == "invalid_api_key"
    assert cell.notary.await_ends(1) == ["revoked"]
    assert cell.engine.decoded == 0


def test_a_device_that_is_cut_off_while_it_sends_is_not_listened_to(cell: RunningCell) -> None:
    go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"{"
        go_on.wait(5)
        yield b"}"

    with cell.client() as client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.post, CHAT, content=slow(), headers={"Content-Type": "application/json"})
        time.sleep(0.3)
        write_policy(cell.policy_file, devices=(device("phone"),))
        time.sleep(0.3)
        go_on.set()
        assert code(sending.result(5)) == "invalid_api_key"


def _without_policy(cell: RunningCell) -> None:
    cell.policy_file.unlink()


def _revoked(cell: RunningCell) -> None:
    write_policy(cell.policy_file, revoked=True)


def _of_another_client(cell: RunningCell) -> None:
    write_policy(cell.policy_file, client="bolt")


def _unreadable(cell: RunningCell) -> None:
    cell.policy_file.write_bytes(b"{}")


@pytest.mark.parametrize("change", [_without_policy, _revoked, _of_another_client, _unreadable])
def test_a_revoked_clients_cell_ends_every_session_and_exits(
    cell: RunningCell, change: Callable[[RunningCell], None]
) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as client:
        open_session(client)
        with client.stream("POST", CHAT, json=ask(stream=True)) as running:
            lines = until_text(running)
            change(cell)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
    assert cell.await_exit(2) == 0
    assert cell.notary.ends() == ["revoked", "revoked"]
    assert cell.engine.held == {}
    assert cell.path.exists(), "the socket is the launcher's"


def test_a_cell_that_starts_for_a_revoked_client_admits_nobody(start_cell: StartCell) -> None:
    cell = start_cell(revoked=True)
    with cell.client() as client:
        assert code(client.get("/v1/models")) == "invalid_api_key"
    assert cell.await_exit() == 0


def test_an_answer_in_progress_is_finished_when_the_cell_drains(cell: RunningCell) -> None:
    cell.engine.pace_s = 0.1
    with cell.client() as client, client.stream("POST", CHAT, json=ask(stream=True)) as running:
        lines = until_text(running)
        cell.terminate()
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert cell.await_exit(2.5) == 0
    assert cell.notary.ends() == ["one_shot"]


def test_a_cell_that_drains_takes_no_more_requests(cell: RunningCell) -> None:
    cell.engine.pace_s = 0.1
    with cell.client() as client, cell.client() as late:
        assert late.get("/v1/models").status_code == 200
        with client.stream("POST", CHAT, json=ask(stream=True)) as running:
            lines = until_text(running)
            cell.terminate()
            time.sleep(0.15)
            assert code(late.post(CHAT, json=ask())) == "draining"
            assert "data: [DONE]" in list(lines)
    assert cell.notary.ends() == ["one_shot"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "DRAIN_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_draining_ends_sessions_in_order_and_exits_with_zero(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as client:
        open_session(client)
        with client.stream("POST", CHAT, json=ask(stream=True)) as running:
            lines = until_text(running)
            started = time.monotonic()
            cell.terminate()
            rest = list(lines)
    assert any('"code":"draining"' in line for line in rest)
    assert any(line.startswith(": receipt ") and '"end":"drained"' in line for line in rest)
    assert cell.await_exit(2.5) == 0
    assert time.monotonic() - started < 2.5
    assert cell.notary.ends() == ["drained", "drained"]
    assert cell.engine.closed


@pytest.mark.usefixtures("impatient")
def test_draining_does_not_wait_for_a_client_that_does_not_read(cell: RunningCell) -> None:
    cell.engine.answer = "x" * 4_000_000
    with cell.client() as client:
        with client.stream("POST", CHAT, json=ask(stream=True)):
            time.sleep(0.3)
            started = time.monotonic()
            cell.terminate()
            assert cell.await_exit(2.9) == 0
            assert time.monotonic() - started < 2.9
    assert cell.notary.ends() == ["drained"]


def test_with_no_idle_time_the_cell_exits_as_soon_as_the_answer_is_written(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(cell_idle_s=0, answer_tokens=64))
    with cell.client() as client:
        assert client.post(CHAT, json=ask(stream=True)).text.endswith("data: [DONE]\n\n")
    assert cell.await_exit(1.5) == 0
    assert cell.notary.ends() == ["one_shot"]


def test_a_kept_session_keeps_the_cell_and_looking_on_does_not(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(cell_idle_s=1, answer_tokens=64))
    with cell.client() as client:
        header = open_session(client)
        time.sleep(1.4)
        assert client.post(CHAT, json=ask(), headers=header).status_code == 200
        client.delete(f"/v1/sessions/{header['X-Session-Id']}")
        ended = time.monotonic()
        with contextlib.suppress(httpx.TransportError):
            # Asking for the models must not prolong how long text stays in memory.
            while client.get("/v1/models", timeout=0.5).status_code == 200 and time.monotonic() < ended + 5:
                time.sleep(0.05)
    assert cell.await_exit(2) == 0
    assert 0.9 < time.monotonic() - ended < 2.5


def test_a_cell_waits_for_the_request_it_was_started_for(start_cell: StartCell) -> None:
    cell = start_cell(limits=Limits(cell_idle_s=0))
    wait_for(cell.is_serving)
    time.sleep(0.5)
    with cell.client() as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models").status_code == 200


def test_a_model_that_is_pinned_no_longer_is_not_served(cell: RunningCell) -> None:
    with cell.client() as client:
        open_session(client)
        changed = manifest().model_copy(update={"version": "2.0"})
        write_policy(cell.policy_file, models=(changed,))
    assert cell.await_exit(2) == 0
    assert cell.notary.ends() == ["drained"]


def test_an_engine_that_gives_up_ends_the_session_and_the_cell(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.fail_after = 0.01, 3
    with cell.client() as client:
        open_session(client)
        text = client.post(CHAT, json=ask(stream=True)).text
    assert '"code":"engine_failed"' in text
    assert ": receipt " in text
    assert text.endswith("data: [DONE]\n\n")
    assert cell.await_exit(2) == 13
    assert cell.notary.ends() == ["failed", "failed"]


def test_an_erase_that_is_not_verified_is_said_in_the_receipt_and_ends_the_cell(cell: RunningCell) -> None:
    cell.engine.erase_verified = False
    with cell.client() as client:
        assert client.post(CHAT, json=ask()).json()["receipt"]["receipt"]["erase"]["verified"] is False
    assert cell.await_exit(2) == 14


def _one_bit(cell: RunningCell) -> None:
    cell.weights.write_bytes(cell.weights.read_bytes()[:-1] + b"\x01")


def _longer(cell: RunningCell) -> None:
    cell.weights.write_bytes(cell.weights.read_bytes() + b"\x00")


def _missing(cell: RunningCell) -> None:
    cell.weights.unlink()


def _another_runtime(cell: RunningCell) -> None:
    runtime = manifest().runtime.model_copy(update={"llama_cpp_python": "0.3.35"})
    write_policy(cell.policy_file, models=(manifest().model_copy(update={"runtime": runtime}),))


def _no_model(cell: RunningCell) -> None:
    write_policy(cell.policy_file, models=())


@pytest.mark.parametrize("change", [_one_bit, _longer, _missing, _another_runtime, _no_model])
def test_a_model_that_is_not_the_pinned_one_never_reaches_the_engine(
    start_cell: StartCell, change: Callable[[RunningCell], None]
) -> None:
    cell = start_cell(started=False)
    change(cell)
    cell.start()
    with cell.client() as client:
        refused = client.post(CHAT, json=ask())
    assert (refused.status_code, code(refused)) == (503, "model_unavailable")
    assert "retry-after" in refused.headers
    assert cell.await_exit() == 11
    assert cell.engine.weights == b""


def test_an_engine_that_does_not_load_serves_nothing(
    start_cell: StartCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = start_cell(started=False)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise ValueError("Failed to load model")

    monkeypatch.setattr(cell.engine, "load", fail)
    cell.start()
    with cell.client() as client:
        assert code(client.get("/v1/models")) == "model_unavailable"
    assert cell.await_exit() == 12

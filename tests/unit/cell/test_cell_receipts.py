"""Receipt before goodbye: what the client has seen when the notary speaks, and what it gets when the notary does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest
from running_cell import RunningCell, ask
from test_cell_sessions import code, open_session, until_text

CHAT = "/v1/chat/completions"


class Listener(threading.Thread):
    """Sends one request and notes when which bytes came."""

    def __init__(self, cell: RunningCell, *, stream: bool) -> None:
        super().__init__()
        self._cell, self._stream = cell, stream
        self.chunks: list[tuple[int, bytes]] = []
        self.headers: httpx.Headers | None = None
        self.start()

    def run(self) -> None:
        with self._cell.client() as client:
            with client.stream("POST", CHAT, json=ask(stream=self._stream)) as response:
                self.headers = response.headers
                self.chunks.extend((time.monotonic_ns(), chunk) for chunk in response.iter_raw())

    @property
    def text(self) -> bytes:
        return b"".join(chunk for _, chunk in self.chunks)


def wait_for(condition: Callable[[], bool], within_s: float = 3.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_decoded_or_sent_before_the_open_record_is_durable(
    cell: RunningCell, *, stream: bool
) -> None:
    cell.notary.may_open.clear()
    listener = Listener(cell, stream=stream)
    time.sleep(0.3)
    assert listener.headers is None
    assert cell.engine.decoded == 0
    cell.notary.may_open.set()
    listener.join(5)
    assert listener.headers is not None
    (opened_at, first), (_, second) = cell.notary.events
    assert (first, second) == ("open", "close")
    assert opened_at < listener.chunks[0][0]


def test_a_stream_keeps_back_its_last_bytes_until_the_receipt_is_durable(cell: RunningCell) -> None:
    cell.notary.may_close.clear()
    listener = Listener(cell, stream=True)
    wait_for(lambda: b'"finish_reason":"stop"' in listener.text)
    time.sleep(0.2)
    assert b"[DONE]" not in listener.text
    assert cell.engine.held == {}, "the erase comes before the receipt"
    cell.notary.may_close.set()
    listener.join(5)
    closed_at = cell.notary.events[-1][0]
    assert listener.text.endswith(b"data: [DONE]\n\n")
    assert closed_at < next(at for at, chunk in listener.chunks if b"[DONE]" in chunk)


def test_a_whole_answer_waits_for_its_receipt(cell: RunningCell) -> None:
    cell.notary.may_close.clear()
    listener = Listener(cell, stream=False)
    wait_for(lambda: cell.engine.decoded == 1)
    time.sleep(0.2)
    assert listener.headers is None
    cell.notary.may_close.set()
    listener.join(5)
    assert b'"receipt":{' in listener.text


def test_a_notary_that_refuses_means_no_answer_and_nothing_decoded(cell: RunningCell) -> None:
    cell.notary.refuse = {"open"}
    with cell.client() as client:
        for path, body in ((CHAT, ask()), (CHAT, ask(stream=True)), ("/v1/sessions", {})):
            refused = client.post(path, json=body)
            assert (refused.status_code, code(refused)) == (503, "notary_unavailable")
            assert "retry-after" in refused.headers
        cell.notary.refuse = set()
        assert client.post(CHAT, json=ask()).status_code == 200
    assert cell.engine.decoded == 1
    assert cell.engine.held == {}


def test_without_a_receipt_no_answer_is_complete(cell: RunningCell) -> None:
    cell.notary.refuse = {"close"}
    with cell.client() as client:
        whole = client.post(CHAT, json=ask())
        assert (whole.status_code, code(whole)) == (503, "notary_unavailable")
        assert "forty" not in whole.text
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(CHAT, json=ask(stream=True))
        header = open_session(client)
        deleted = client.delete(f"/v1/sessions/{header['X-Session-Id']}")
        assert (deleted.status_code, code(deleted)) == (503, "notary_unavailable")
    assert cell.engine.held == {}


def test_a_cell_does_not_outlive_its_notary(cell: RunningCell) -> None:
    cell.engine.pace_s, cell.engine.answer = 0.02, None
    with cell.client() as client:
        with client.stream("POST", CHAT, json=ask(stream=True)) as running:
            lines = until_text(running)
            cell.notary.hang_up()
            rest = "".join(lines)
    assert '"code":"notary_unavailable"' in rest
    assert ": receipt" not in rest
    assert cell.await_exit() == 15
    assert cell.engine.held == {}
    assert cell.engine.closed


def test_a_notary_that_answers_out_of_turn_is_not_believed(cell: RunningCell) -> None:
    wait_for(cell.is_serving)
    cell.notary.say({"id": 1, "ok": True, "result": {}})
    assert cell.await_exit() == 15


def test_a_notary_that_does_not_answer_in_time_is_not_waited_for(
    cell: RunningCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.cell.notary.TIMEOUT_S", 0.2)
    cell.notary.may_open.clear()
    with cell.client() as client:
        assert code(client.post(CHAT, json=ask())) == "notary_unavailable"
    assert cell.await_exit() == 15
    assert cell.engine.decoded == 0


def test_a_receipt_has_its_proof_once_the_log_holds_it(cell: RunningCell) -> None:
    with cell.client() as client:
        receipt = client.post(CHAT, json=ask()).headers["x-receipt-id"]
        waiting = client.get(f"/v1/receipts/{receipt}/proof")
        assert (waiting.status_code, code(waiting)) == (503, "not_logged")
        assert waiting.headers["retry-after"]
        cell.notary.logged = True
        proof = client.get(f"/v1/receipts/{receipt}/proof")
        assert (proof.status_code, proof.text) == (200, f"proof of {receipt}\n")
        assert proof.headers["content-type"] == "text/plain; charset=utf-8"
        assert proof.headers["x-receipt-id"] == receipt
        assert proof.headers["cache-control"] == "no-store"

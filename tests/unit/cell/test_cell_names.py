"""A client asks for its model by name or by an alias; which model an alias names is the policy's business."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
from running_cell import StartCell, ask, manifest, write_policy

from appliance.core import hashed
from appliance.core.bundle import Alias
from appliance.core.hashed import file_identity, note_hashed, read_boot_id

TINY = (
    Alias(alias="chat", model="tiny"),
    Alias(alias="default", model="tiny"),
    Alias(alias="far", model="big"),
)


def big() -> Any:
    return manifest().model_copy(update={"name": "big"})


@pytest.mark.parametrize("name", ["tiny", "chat", "default"])
def test_a_model_answers_to_its_name_and_its_aliases(start_cell: StartCell, name: str) -> None:
    cell = start_cell(aliases=TINY, models=(manifest(), big()))
    with cell.client() as client:
        answer = client.post("/v1/chat/completions", json=ask(model=name))
        assert answer.status_code == 200
        # Whatever it was asked for by: the answer says which model it was.
        assert answer.json()["model"] == "tiny"
        assert client.get(f"/v1/models/{name}").json()["id"] == "tiny"
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]


@pytest.mark.parametrize("name", ["far", "big", "other", "Chat", ""])
def test_what_does_not_name_the_loaded_model_is_not_found(start_cell: StartCell, name: str) -> None:
    cell = start_cell(aliases=TINY, models=(manifest(), big()))
    with cell.client() as client:
        answer = client.post("/v1/chat/completions", json=ask(model=name))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_an_alias_that_moves_away_names_the_model_no_longer(start_cell: StartCell) -> None:
    cell = start_cell(aliases=TINY, models=(manifest(), big()))
    with cell.client() as client:
        assert client.get("/v1/models/chat").status_code == 200
        write_policy(cell.policy_file, aliases=(), models=(manifest(), big()))
        for _ in range(100):
            if client.get("/v1/models/chat").status_code == 404:
                break
        else:
            pytest.fail("the alias still names the model")
        assert client.get("/v1/models/tiny").status_code == 200


def test_a_cell_ends_when_another_model_is_the_client_s_first(start_cell: StartCell) -> None:
    cell = start_cell(models=(manifest(), big()))
    with cell.client() as client:
        assert client.get("/v1/models").status_code == 200
    write_policy(cell.policy_file, models=(big(), manifest()))
    assert cell.await_exit() == 0


def test_a_cell_does_not_hash_what_the_agent_hashed(
    start_cell: StartCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[str] = []
    verify = hashed.verify_open_file

    def watch(*arguments: Any) -> None:
        hashes.append("hashed")
        verify(*arguments)

    monkeypatch.setattr(hashed, "verify_open_file", watch)
    cell = start_cell(started=False)
    sha256 = hashlib.sha256(cell.weights.read_bytes()).hexdigest()
    with cell.weights.open("rb") as file:
        note_hashed(file_identity(file.fileno(), read_boot_id()), cell.weights.parent, sha256)
    cell.start()
    with cell.client() as client:
        assert client.get("/v1/models").status_code == 200
    assert hashes == []


def test_a_note_does_not_let_other_bytes_through(start_cell: StartCell) -> None:
    cell = start_cell(started=False)
    sha256 = hashlib.sha256(cell.weights.read_bytes()).hexdigest()
    with cell.weights.open("rb") as file:
        note_hashed(file_identity(file.fileno(), read_boot_id()), cell.weights.parent, sha256)
    time.sleep(0.02)  # ctime moves in steps of the kernel's clock
    cell.weights.write_bytes(cell.weights.read_bytes()[:-1] + b"\x01")
    cell.start()
    assert cell.await_exit() == 11
    assert cell.engine.weights == b""

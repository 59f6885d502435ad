"""A witness cosigns what continues what it saw, over HTTP as c2sp.org/tlog-witness says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from transparency_world import NOW, Tree, entries, mth, policy, signer, witness

from appliance.transparency.checkpoint import LogSigner
from appliance.transparency.memory import Memory
from appliance.transparency.merkle import consistency_proof
from appliance.transparency.note import parse_signature
from appliance.transparency.proof import Continuation
from appliance.transparency.witness import Witness, build_app

WITNESS = witness("witness.example")


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(build_app(Witness(WITNESS, tmp_path / "seen", policy())))


def request(
    old: int, new: int, *, log: LogSigner | None = None, made: list[bytes] | None = None
) -> Continuation:
    made = made or entries(new)
    hashes = consistency_proof(Tree(made), old, new)
    return Continuation(old, tuple(hashes), (log or signer()).sign(new, mth(made), NOW))


def post(client: TestClient, body: Continuation | bytes) -> tuple[int, str, str]:
    data = body if isinstance(body, bytes) else body.render()
    answer = client.post("/add-checkpoint", content=data)
    return answer.status_code, answer.text, answer.headers["content-type"]


def test_it_cosigns_one_head_after_the_other(client: TestClient, tmp_path: Path) -> None:
    for old, new in ((0, 5), (5, 5), (5, 12), (12, 700)):
        asked = request(old, new)
        status, line, _ = post(client, asked)
        assert status == 200
        note = asked.checkpoint.cosigned(parse_signature(line.removesuffix("\n")))
        assert policy(WITNESS, quorum=1).verify(note).size == new
    assert Memory(tmp_path / "seen", policy()).seen.size == 700


def test_who_begins_elsewhere_is_told_where_it_stands(client: TestClient) -> None:
    post(client, request(0, 5))
    for stale in (request(0, 9), request(3, 9), request(7, 9)):
        assert post(client, stale) == (409, "5\n", "text/x.tlog.size")
    assert post(client, request(5, 9))[0] == 200


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(5, 9, made=[b"x", *entries(9)[1:]]), 422),
        (Continuation(5, (), request(5, 9).checkpoint), 422),
        (request(5, 9, log=signer(keys="thief")), 403),
        (request(5, 9, log=signer(origin="other.example/log")), 404),
        (request(5, 9).render() + b"x", 400),
        (b"", 400),
        (b"x" * 10**6, 413),
    ],
    ids=["fork", "no proof", "thief", "another log", "a byte more", "nothing", "too much"],
)
def test_what_does_not_continue_is_refused_and_not_remembered(
    client: TestClient, asked: Continuation | bytes, status: int
) -> None:
    post(client, request(0, 5))
    assert post(client, asked)[0] == status
    assert post(client, request(5, 9))[0] == 200


def test_a_fork_at_the_same_size_is_refused(client: TestClient) -> None:
    post(client, request(0, 5))
    fork = Continuation(5, (), signer().sign(5, mth([b"x"] * 5), NOW))
    assert post(client, fork)[0] == 422
    assert client.get("/add-checkpoint").status_code == 405
    assert client.post("/").status_code == 404

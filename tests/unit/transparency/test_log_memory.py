"""What is remembered of a log: nothing that does not continue it is ever accepted, and nothing is forgotten."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from transparency_world import NOW, ORIGIN, Tree, entries, mth, policy, signer

from appliance.core.errors import HostError
from appliance.transparency.errors import ConsistencyError, LogFormatError, LogSignatureError
from appliance.transparency.memory import Memory
from appliance.transparency.merkle import consistency_proof
from appliance.transparency.proof import Continuation


def grown(old: int, made: Sequence[bytes], keys: str = "log") -> Continuation:
    hashes = consistency_proof(Tree(list(made)), old, len(made))
    return Continuation(old, tuple(hashes), signer(ORIGIN, keys).sign(len(made), mth(list(made)), NOW))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "seen", policy())


def test_a_log_is_followed_from_its_first_head_on(memory: Memory, tmp_path: Path) -> None:
    assert memory.seen.size == 0
    for old, new in ((0, 3), (3, 3), (3, 8), (8, 20)):
        assert memory.advance(grown(old, entries(new))).size == new
    assert Memory(tmp_path / "seen", policy()).seen.size == 20


def test_a_fork_a_shrink_and_a_rewritten_past_are_refused_and_change_nothing(memory: Memory) -> None:
    memory.advance(grown(0, entries(8)))
    rewritten = [b"rewritten", *entries(12)[1:]]
    for forged in (
        grown(8, rewritten),
        grown(0, rewritten),
        grown(0, entries(12)),
        Continuation(8, (), signer().sign(7, mth(entries(7)), NOW)),
        Continuation(8, (), signer().sign(8, mth(rewritten[:8]), NOW)),
    ):
        with pytest.raises(ConsistencyError):
            memory.advance(forged)
    with pytest.raises(LogSignatureError):
        memory.advance(grown(8, entries(12), keys="thief"))
    assert memory.seen.size == 8
    assert memory.advance(grown(8, entries(12))).size == 12


def test_what_is_remembered_is_verified_too(memory: Memory, tmp_path: Path) -> None:
    memory.advance(grown(0, entries(8)))
    seen = tmp_path / "seen"
    seen.write_bytes(seen.read_bytes().replace(b"\n8\n", b"\n2\n"))
    with pytest.raises(LogSignatureError):
        memory.advance(grown(2, entries(12)))
    seen.write_bytes(b"")
    with pytest.raises(LogFormatError):
        memory.advance(grown(0, entries(12)))


def test_nothing_is_accepted_that_could_not_be_kept(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.advance(grown(0, entries(2)))

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(HostError, match="cannot write"):
            memory.advance(grown(2, entries(5)))
    assert memory.seen.size == 2


def test_of_two_at_once_one_comes_first(memory: Memory) -> None:
    memory.advance(grown(0, entries(4)))
    outcomes: list[str] = []

    def advance(size: int) -> None:
        try:
            outcomes.append(str(memory.advance(grown(4, entries(size))).size))
        except ConsistencyError:
            outcomes.append("refused")

    threads = [threading.Thread(target=advance, args=(size,)) for size in (6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(outcomes) == "refused"
    assert str(memory.seen.size) == min(outcomes)

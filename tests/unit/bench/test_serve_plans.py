"""Servers are compared with the same threads, context and batch; what differs is what is meant to differ."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from serve_world import MODEL

from appliance.bench.serve.cases import CASES, OURS, TUNED
from appliance.bench.serve.plans import BATCH_TOKENS, Example, Model, Ours, Peer, chat_fields, slowed, tuned
from appliance.bench.serve.prompts import Prompts


def settings(peer: Peer) -> dict[str, str]:
    arguments = peer.arguments(2)
    return {
        name: value if not value.startswith("--") else ""
        for name, value in zip(arguments, [*arguments[1:], "--"], strict=True)
        if name.startswith("--")
    }


def test_a_server_by_default_is_told_nothing_but_its_threads() -> None:
    assert settings(Peer()) == {"--threads": "2", "--threads-batch": "2"}


def test_a_tuned_server_has_streams_of_its_own_and_does_nothing_that_is_not_asked_for() -> None:
    assert settings(tuned(8, 300)) == {
        "--threads": "2",
        "--threads-batch": "2",
        "--parallel": "8",
        "--ctx-size": str(8 * 512),
        "--batch-size": str(BATCH_TOKENS),
        "--ubatch-size": str(BATCH_TOKENS),
        "--flash-attn": "auto",
        "--no-kv-unified": "",
        "--cache-ram": "0",
        "--skip-chat-parsing": "",
    }


@pytest.mark.parametrize("case", [c for c in CASES if TUNED in c.sides], ids=lambda case: case.name)
def test_the_tuned_server_has_as_many_streams_of_the_same_size_as_we_have(case) -> None:
    ours = next(plan for plan in case.sides.values() if isinstance(plan, Ours))
    peer = case.sides[TUNED]
    assert isinstance(peer, Peer)
    assert peer.slots == ours.cells * ours.streams
    assert peer.context_tokens == ours.context_tokens


def test_the_example_server_gets_the_tuned_server_s_settings() -> None:
    settings = Example(8, 300).config(MODEL, 2, 8000)["model"]
    assert (settings["n_seq_max"], settings["n_ctx"], settings["kv_unified"]) == (8, 8 * 512, False)
    assert (settings["n_batch"], settings["n_ubatch"], settings["threads"]) == (BATCH_TOKENS, BATCH_TOKENS, 2)
    assert settings["chat_template"] == MODEL.manifest.chat_template


def test_a_pin_gets_the_plan_s_launch_settings() -> None:
    launch = Ours(4, 512).pin(MODEL).launch
    assert (launch.max_sessions, launch.context_tokens, launch.batch_tokens) == (4, 512, BATCH_TOKENS)


def test_answers_have_the_length_that_was_asked_for_unless_the_model_ends_them() -> None:
    assert chat_fields(Peer(), MODEL) == {"ignore_eos": True}
    assert chat_fields(Peer(), Model(MODEL.path, MODEL.manifest, ends=True)) == {}
    assert chat_fields(Ours(1, 256), MODEL) == {"model": "shape"}


def test_only_the_control_is_slowed() -> None:
    assert slowed(Ours(1, 256)).delay_ms > 0
    assert all(case.sides[OURS].delay_ms == 0 for case in CASES if OURS in case.sides)


def test_the_same_seed_and_round_ask_the_same() -> None:
    def drawn(seed: int, round_number: int) -> list[str]:
        prompts = Prompts(seed, round_number)
        return [prompts.first_message(20), prompts.words(5), prompts.retrieval()]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)


def test_a_message_has_the_words_that_make_its_prompt_the_right_length() -> None:
    assert len(Prompts(1, 0).first_message(128).split()) == 124


def test_a_question_is_about_one_of_the_passages() -> None:
    for number in range(Random(1).randint(20, 30)):
        *passages, empty, question = Prompts(1, number).retrieval().splitlines()
        assert [passage[:3] for passage in passages] == [f"[{place}]" for place in range(1, 6)]
        assert empty == ""
        if question.startswith("Who "):
            deed, _, what = question.removeprefix("Who ").removesuffix("?").partition(" the ")
            assert any(f"The {what} was {deed} by " in passage for passage in passages)
        else:
            assert question.startswith("Quote passage ")


def test_a_plan_says_nothing_of_paths() -> None:
    assert Path(MODEL.path).name not in " ".join(tuned(1, 256).arguments(1))

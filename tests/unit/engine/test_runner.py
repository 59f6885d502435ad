"""Steps on the synthetic model, driven one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_bench import CONTEXT_TOKENS, Bench, text_of

from inference.engine import pace, scheduler
from inference.engine.erase import Erased, erase
from inference.engine.errors import ContextOverflow, EngineFailed
from inference.engine.llama import Context
from inference.engine.sampling import Sampling
from inference.engine.scheduler import LEAST_SHARED
from inference.engine.state_blob import Layout

pytestmark = pytest.mark.engine

GREEDY = Sampling(max_tokens=24, temperature=0)


def test_greedy_answers_are_the_same_every_time(bench: Bench) -> None:
    texts = set()
    for _ in range(3):
        stream = bench.runner.open()
        texts.add(bench.answer(stream, bench.prompt("what is the answer"), GREEDY))
        bench.runner.close(stream)
    assert len(texts) == 1
    assert all(
        word.isalpha() or word in {".", ","}
        for word in texts.pop().replace(".", " ").replace(",", " ").split()
    )


def test_answers_depend_on_the_prompt_and_on_its_first_words_too(bench: Bench) -> None:
    stream = bench.runner.open()
    texts = {
        bench.answer(stream, bench.prompt(f"{word} is in the house"), GREEDY)
        for word in ("gold", "fire", "snow")
    }
    assert len(texts) == 3


def test_a_seed_fixes_a_sampled_answer_and_no_seed_does_not(bench: Bench) -> None:
    prompt = bench.prompt("tell me a story")
    stream = bench.runner.open()

    def texts(seed: int | None) -> set[str]:
        sampling = Sampling(max_tokens=24, temperature=1.0, top_k=50, top_p=0.9, min_p=0.01, seed=seed)
        return {bench.answer(stream, prompt, sampling) for _ in range(3)}

    # The first answer prefills, the later ones reuse: batch shapes differ, so compare the later ones.
    texts(1)
    assert len(texts(1)) == 1
    assert texts(1) != texts(2)
    assert len(texts(None)) == 3


def test_a_neighbour_does_not_change_an_answer(bench: Bench) -> None:
    """Streams are batched with equal shapes, once beside one neighbour and once beside another."""
    prompt = bench.prompt("where is the bridge over the river")
    neighbours = [
        bench.prompt("tell me about the ocean today"),
        bench.prompt("name every secret of the king"),
    ]
    assert len(neighbours[0]) == len(neighbours[1])
    texts = []
    for neighbour in neighbours:
        streams = [bench.runner.open(), bench.runner.open()]
        bench.runner.start(streams[0], prompt, GREEDY)
        bench.runner.start(streams[1], neighbour, GREEDY)
        pieces = bench.drain()
        texts.append([text_of(pieces[stream]) for stream in streams])
        for stream in streams:
            bench.runner.close(stream)
    assert texts[0][0] == texts[1][0]
    assert texts[0][1] != texts[1][1]


def test_the_next_turn_prefills_only_what_is_new(bench: Bench) -> None:
    stream = bench.runner.open()
    first = bench.prompt("tell me about the mountain " * 5)
    answer = bench.answer(stream, first, Sampling(max_tokens=10, temperature=1, seed=5))
    before = bench.runner.prefilled
    second = bench.prompt("tell me about the mountain " * 5, answer, "and then")
    bench.answer(stream, second, GREEDY)
    # The answer's last token was never decoded, and the new turn: <|end|> <|user|> and then <|end|> <|assistant|>.
    assert bench.runner.prefilled - before == 1 + 6
    assert len(second) > 40


def test_reusing_the_cache_gives_the_text_that_a_fresh_stream_gives(bench: Bench) -> None:
    turns = ("where is the house", "in the village", "and the garden")
    kept, fresh = bench.runner.open(), bench.runner.open()
    bench.answer(kept, bench.prompt(*turns[:1]), GREEDY)
    assert bench.answer(kept, bench.prompt(*turns), GREEDY) == bench.answer(
        fresh, bench.prompt(*turns), GREEDY
    )


def test_an_overflow_is_refused_before_anything_is_decoded(bench: Bench) -> None:
    stream = bench.runner.open()
    prompt = bench.prompt("again " * CONTEXT_TOKENS)
    with pytest.raises(ContextOverflow) as overflow:
        bench.runner.start(stream, prompt, Sampling(max_tokens=1))
    assert overflow.value.prompt_tokens == len(prompt)
    assert (bench.runner.prefilled, bench.runner.busy) == (0, False)


def test_a_stream_can_be_filled_to_its_very_end(bench: Bench) -> None:
    stream = bench.runner.open()
    prompt = bench.prompt("river " * 300)
    bench.runner.start(stream, prompt, Sampling(max_tokens=CONTEXT_TOKENS - len(prompt), temperature=0))
    pieces = bench.drain()[stream]
    assert pieces[-1].finish in {"length", "stop"}
    assert sum(piece.tokens for piece in pieces) <= CONTEXT_TOKENS - len(prompt)
    assert bench.runner.close(stream).verified


def test_tokens_are_counted_and_the_last_piece_says_why_it_ended(bench: Bench) -> None:
    stream = bench.runner.open()
    bench.runner.start(stream, bench.prompt("hello"), GREEDY)
    pieces = bench.drain()[stream]
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish == "length"
    assert sum(piece.tokens for piece in pieces) == GREEDY.max_tokens


def test_a_stop_text_ends_the_answer_before_it(bench: Bench) -> None:
    stream = bench.runner.open()
    prompt = bench.prompt("hello there")
    text = bench.answer(stream, prompt, GREEDY)
    stop = text[len(text) // 2 : len(text) // 2 + 5]
    bench.runner.start(stream, prompt, Sampling(max_tokens=24, temperature=0, stop=(stop,)))
    pieces = bench.drain()[stream]
    assert text_of(pieces) == text[: text.index(stop)]
    assert pieces[-1].finish == "stop"


def test_the_end_token_ends_an_answer_and_shows_no_text(bench: Bench) -> None:
    stream = bench.runner.open()
    for seed in range(60):
        bench.runner.start(stream, bench.prompt("hello"), Sampling(max_tokens=200, temperature=1, seed=seed))
        pieces = bench.drain()[stream]
        if pieces[-1].finish == "stop":
            assert "<|end|>" not in text_of(pieces)
            return
    pytest.fail("the end token never came")


def test_cancelling_frees_the_step_and_keeps_the_stream(bench: Bench) -> None:
    stream = bench.runner.open()
    bench.runner.start(stream, bench.prompt("river " * 100), GREEDY)
    bench.runner.step()
    bench.runner.cancel(stream)
    assert not bench.runner.busy
    bench.runner.cancel(stream)  # again does no harm
    assert bench.answer(stream, bench.prompt("hello"), GREEDY)


def test_a_long_prompt_delays_others_by_one_chunk_per_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "STALL_S", 0.0)  # so small a model would read all of it in that time
    talker, reader = bench.runner.open(), bench.runner.open()
    bench.runner.start(talker, bench.prompt("hello"), Sampling(max_tokens=40, temperature=0))
    bench.runner.step()
    bench.runner.start(reader, bench.prompt("river " * 200), GREEDY)
    for _ in range(5):
        before = bench.runner.prefilled
        assert [stream for stream, _ in bench.runner.step()] == [talker]
        assert bench.runner.prefilled - before == 32


def test_tokens_do_not_wait_for_the_chunk_that_is_read_after_them(bench: Bench) -> None:
    talker, reader = bench.runner.open(), bench.runner.open()
    bench.runner.start(talker, bench.prompt("hello"), Sampling(max_tokens=40, temperature=0))
    bench.runner.step()
    bench.runner.start(reader, bench.prompt("river " * 100), GREEDY)
    read = bench.runner.prefilled
    seen: list[tuple[int, int]] = []
    late = bench.runner.step(
        lambda pieces: seen.extend((stream, bench.runner.prefilled) for stream, _ in pieces)
    )
    assert seen == [(talker, read)]
    assert talker not in [stream for stream, _ in late]
    assert bench.runner.prefilled > read


@pytest.mark.parametrize(
    ("tokens", "positions", "streams", "outputs"),
    [
        ([], [], [], []),
        ([1] * 300, range(300), [0] * 300, []),
        ([-1], [0], [0], []),
        ([10**6], [0], [0], []),
        ([1], [-1], [0], []),
        ([1], [CONTEXT_TOKENS], [0], []),
        ([1], [0], [4], []),
        ([1], [0], [-1], []),
        ([1] * 17, range(17), [0] * 17, range(17)),
    ],
)
def test_a_batch_that_llama_cpp_would_abort_on_is_refused_in_python(
    context: Context, tokens: list[int], positions: list[int], streams: list[int], outputs: list[int]
) -> None:
    with pytest.raises(EngineFailed):
        context.decode(tokens, positions, streams, outputs)
    context.decode([1], [0], [0], [0])
    assert context.logits(0).any()
    with pytest.raises(EngineFailed):
        context.truncate(4, 0)


def steps_of(bench: Bench, prompt: list[int], sampling: Sampling) -> tuple[str, int]:
    """Answer on a fresh stream; return the text and how many steps it took."""
    stream = bench.runner.open()
    bench.runner.start(stream, prompt, sampling)
    text, steps = "", 0
    while bench.runner.busy:
        text += text_of([piece for _, piece in bench.runner.step()])
        steps += 1
    assert bench.runner.close(stream).verified
    return text, steps


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess wherever there is something to guess, whatever it costs on this machine."""
    monkeypatch.setattr(
        scheduler, "guesses_worth", lambda _, *, streams, rate, most: min(most, 16 // streams - 1)
    )


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_guessing_changes_no_answer_and_saves_steps_where_words_repeat(
    bench: Bench, temperature: float
) -> None:
    prompt = bench.prompt("gold fire snow gold fire snow")
    chatter = Sampling(max_tokens=60, temperature=temperature, seed=7)
    echo = replace(chatter, logit_bias=((prompt[2], 40.0), (prompt[3], 39.0)))
    for sampling, least in ((chatter, 0), (echo, 20)):
        plain, most = steps_of(bench, prompt, sampling)
        text, steps = steps_of(bench, prompt, replace(sampling, lookup=True))
        assert text == plain
        assert steps <= most - least


@pytest.mark.usefixtures("eager")
def test_guesses_of_several_streams_share_a_step(bench: Bench) -> None:
    prompts = [bench.prompt(f"{word} {word} {word}") for word in ("gold", "fire")]
    samplings = [
        Sampling(max_tokens=50, temperature=0, lookup=True, logit_bias=((prompt[2], 40.0),))
        for prompt in prompts
    ]
    alone = [steps_of(bench, prompt, sampling) for prompt, sampling in zip(prompts, samplings, strict=True)]
    streams = [bench.runner.open() for _ in prompts]
    for stream, prompt, sampling in zip(streams, prompts, samplings, strict=True):
        bench.runner.start(stream, prompt, sampling)
    pieces = bench.drain()
    assert [text_of(pieces[stream]) for stream in streams] == [text for text, _ in alone]
    for stream in streams:
        assert bench.runner.close(stream).verified


@pytest.mark.usefixtures("eager")
def test_a_guess_that_was_wrong_is_erased_too_and_not_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = bench.prompt("river house river house river")
    stream = bench.runner.open()
    bench.runner.start(stream, prompt, Sampling(max_tokens=90, temperature=1, seed=3, lookup=True))
    held = bench.scheduler.stream(stream)
    while held.high_water <= held.cached or not held.known > len(
        prompt
    ):  # until cells of a wrong guess stand behind
        bench.runner.step()
    overwritten = []

    def erase_and_note(context: Context, layout: Layout, stream: int, cells: int) -> Erased:
        overwritten.append(cells)
        return erase(context, layout, stream, cells)

    monkeypatch.setattr("inference.engine.runner.erase", erase_and_note)
    erased = bench.runner.close(stream)
    assert erased == Erased(held.longest * bench.layout.cell_bytes, verified=True)
    assert overwritten == [max(held.high_water, held.longest)]


def test_choices_of_one_prompt_read_it_once_and_answer_as_they_would_alone(bench: Bench) -> None:
    prompt = bench.prompt("where is the bridge over the river " * 12)
    samplings = [
        Sampling(max_tokens=12, temperature=0.9, seed=seed, presence_penalty=0.5) for seed in (1, 2, 3)
    ]
    alone = []
    for sampling in samplings:
        stream = bench.runner.open()
        alone.append(bench.answer(stream, prompt, sampling))
        bench.runner.close(stream)
    before = bench.runner.prefilled
    streams = [bench.runner.open() for _ in samplings]
    for stream, sampling in zip(streams, samplings, strict=True):
        bench.runner.start(stream, prompt, sampling, like=streams[0] if stream != streams[0] else None)
    pieces = bench.drain()
    assert [text_of(pieces[stream]) for stream in streams] == alone
    assert bench.runner.prefilled - before == len(prompt)
    assert all(bench.runner.close(stream).bytes > len(prompt) * bench.layout.cell_bytes for stream in streams)


def test_a_choice_that_begins_late_copies_what_is_there(bench: Bench) -> None:
    prompt = bench.prompt("tell me about the ocean " * 12)
    first, late = bench.runner.open(), bench.runner.open()
    bench.runner.start(first, prompt, GREEDY)
    while bench.scheduler.stream(first).prefilling:
        bench.runner.step()
    before = bench.runner.prefilled
    bench.runner.start(late, prompt, GREEDY, like=first)
    pieces = bench.drain()
    assert bench.runner.prefilled - before == 1
    assert text_of(pieces[late])[:20]


def test_a_choice_whose_leader_goes_away_reads_the_prompt_itself(bench: Bench) -> None:
    prompt = bench.prompt("river " * 200)
    alone = bench.runner.open()
    expected = bench.answer(alone, prompt, GREEDY)
    leader, follower = bench.runner.open(), bench.runner.open()
    bench.runner.start(leader, prompt, GREEDY)
    bench.runner.start(follower, prompt, GREEDY, like=leader)
    bench.runner.step()
    bench.runner.close(leader)
    assert text_of(bench.drain()[follower]) == expected


def test_another_prompt_is_not_taken_for_the_same(bench: Bench) -> None:
    one, other = bench.runner.open(), bench.runner.open()
    bench.runner.start(one, bench.prompt("gold fire snow"), GREEDY)
    bench.runner.start(other, bench.prompt("gold fire rain"), GREEDY, like=one)
    pieces = bench.drain()
    assert text_of(pieces[one]) != text_of(pieces[other])


INSTRUCTIONS = "only speak of the river and of the mountain behind it " * 10
BRIEF = Sampling(max_tokens=3, temperature=0)  # cells of other batches differ in their last bits


def test_what_another_session_was_told_first_is_copied_and_not_read_again(bench: Bench) -> None:
    first, second, alone = (bench.runner.open() for _ in range(3))
    wordy, brief = (bench.prompt(f"{INSTRUCTIONS}{said}") for said in ("and say a lot", "and be brief"))
    same = next(place for place, (one, other) in enumerate(zip(wordy, brief, strict=False)) if one != other)
    bench.answer(first, wordy, BRIEF)
    read = bench.runner.prefilled
    expected = bench.answer(alone, brief, BRIEF)
    assert bench.runner.prefilled - read == len(brief)  # not unless it may be
    read = bench.runner.prefilled
    bench.runner.start(second, brief, BRIEF, shared=same + 100)
    assert text_of(bench.drain()[second]) == expected
    assert bench.runner.prefilled - read <= len(brief) - same
    read = bench.runner.prefilled
    other = bench.runner.open()
    bench.runner.start(other, brief, BRIEF, shared=LEAST_SHARED - 1)
    assert text_of(bench.drain()[other]) == expected
    assert bench.runner.prefilled - read == len(brief)  # too few to be worth it
    assert all(bench.runner.close(stream).verified for stream in (first, second, alone, other))


def test_no_more_is_copied_than_may_be(bench: Bench) -> None:
    first, second = bench.runner.open(), bench.runner.open()
    prompt = bench.prompt(INSTRUCTIONS)
    expected = bench.answer(first, prompt, BRIEF)
    read = bench.runner.prefilled
    bench.runner.start(second, prompt, BRIEF, shared=LEAST_SHARED)
    assert text_of(bench.drain()[second]) == expected
    assert bench.runner.prefilled - read == len(prompt) - LEAST_SHARED

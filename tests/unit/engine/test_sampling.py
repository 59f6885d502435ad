"""Choosing tokens: exactly what the parameters say, as the pinned llama.cpp means them, and never by its slow path."""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from engine_bench import Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from appliance.core.errors import RefusedError
from inference.engine import sampler as sampling_module
from inference.engine.errors import EngineFailed
from inference.engine.sampler import Logits, Sampler, lowest_kept
from inference.engine.sampling import Sampling, verify_sampling

N = 3000


def row(seed: int, spread: float, n: int = N) -> Logits:
    """Logits without ties: nearly flat for a small spread, peaked for a large one."""
    return (np.random.default_rng(seed).standard_normal(n) * spread).astype(np.float32)


def kept(logits: Logits, **fields: Any) -> set[int]:
    sampling = Sampling(max_tokens=1, **fields)
    return set(np.flatnonzero(logits >= np.float32(lowest_kept(logits, sampling))).tolist())


def apply_natively(logits: Logits, *links: Any, accepted: tuple[int, ...] = ()) -> dict[int, float]:
    """Run links of llama.cpp's own over a row; return the logits of the tokens that are left."""
    data = (lib.llama_token_data * len(logits))()
    for token, logit in enumerate(logits):
        data[token] = lib.llama_token_data(token, float(logit), 0.0)
    array = lib.llama_token_data_array(data, len(logits), -1, False)
    for link in links:
        for token in accepted:
            lib.llama_sampler_accept(link, token)
        lib.llama_sampler_apply(link, ctypes.byref(array))
        lib.llama_sampler_free(link)
    return {array.data[i].id: array.data[i].logit for i in range(array.size)}


FILTERS: dict[str, Callable[[Any], Any]] = {
    "top_k": lib.llama_sampler_init_top_k,
    "top_p": lambda p: lib.llama_sampler_init_top_p(p, 1),
    "min_p": lambda p: lib.llama_sampler_init_min_p(p, 1),
}


@pytest.mark.engine
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 2000},
        {"top_k": 10_000},
        {"top_p": 0.1},
        {"top_p": 0.95},
        {"min_p": 0.05},
        {"min_p": 1.0},
        {"top_k": 100, "top_p": 0.8},
        {"top_k": 50, "top_p": 0.9, "min_p": 0.1},
    ],
)
def test_filters_keep_what_the_pinned_llama_cpp_keeps(fields: dict[str, Any], spread: float) -> None:
    for seed in range(5):
        logits = row(seed, spread)
        links = [FILTERS[name](value) for name, value in fields.items()]
        native = set(apply_natively(logits, *links))
        ours = kept(logits, **fields)
        # Both are the likeliest so many. llama.cpp adds probabilities in float32, so its nucleus may end elsewhere by
        # what that rounds away.
        assert ours <= native or native <= ours
        assert abs(len(ours) - len(native)) <= (1 if "top_p" in fields else 0)


@pytest.mark.engine
def test_penalties_and_bias_change_logits_as_the_pinned_llama_cpp_does() -> None:
    logits, sampled = row(1, 3.0), (5, 7, 5, 5, 2999)
    bias = {5: -3.5, 11: 40.0, 2999: 0.25}
    sampling = Sampling(
        max_tokens=9, frequency_penalty=0.7, presence_penalty=-1.2, logit_bias=tuple(bias.items()), seed=1
    )
    entries = (lib.llama_logit_bias * len(bias))(*(lib.llama_logit_bias(*pair) for pair in bias.items()))
    native = apply_natively(
        logits,
        lib.llama_sampler_init_logit_bias(N, len(bias), entries),
        lib.llama_sampler_init_penalties(N, 64, 1.0, 0.7, -1.2),
        accepted=sampled,
    )
    sampler = Sampler(sampling, N)
    shift = sampler._shift
    assert shift is not None
    for token in sampled:
        shift.accept(token)
    ours = logits.copy()
    sampler.sample(ours)
    np.testing.assert_allclose(ours, [native[token] for token in range(N)], rtol=1e-6, atol=1e-5)


@settings(deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=60),
    st.floats(0.001, 0.999),
    st.integers(0, 70),
)
def test_the_nucleus_is_the_smallest_set_of_likeliest_tokens_that_has_the_probability(
    values: list[float], top_p: float, top_k: int
) -> None:
    logits = np.array(values, np.float32)
    left = sorted(kept(logits, top_p=top_p, top_k=top_k))
    pool = sorted(kept(logits, top_k=top_k))
    weights = np.exp(logits.astype(np.float64) - logits.max())
    total = weights[pool].sum()
    assert min(logits[left]) >= max((logits[token] for token in pool if token not in left), default=-math.inf)
    assert weights[left].sum() >= top_p * total * (1 - 1e-5)
    above_the_last = [token for token in left if logits[token] > min(logits[left])]
    assert weights[above_the_last].sum() < top_p * total * (1 + 1e-5)


def test_only_what_can_be_in_the_nucleus_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sort = np.sort

    def counting(values: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(len(values))
        return sort(values)

    monkeypatch.setattr(np, "sort", counting)
    logits = row(3, 4.0, n=150_000)
    assert kept(logits, top_p=0.9)
    assert kept(logits, top_p=0.9, top_k=200)
    assert sizes[0] < 15_000
    assert sizes[1] <= 200


@pytest.mark.parametrize("fields", [{}, {"top_k": 4}, {"top_p": 0.8}, {"min_p": 0.2}])
def test_drawn_tokens_have_the_frequencies_of_the_filtered_distribution(fields: dict[str, Any]) -> None:
    logits, draws = np.array([2.0, 1.5, 1.0, 0.0, -1.0, -math.inf], np.float32), 20_000
    sampler = Sampler(Sampling(max_tokens=1, temperature=0.7, seed=7, **fields), len(logits))
    counts = Counter(sampler.sample(logits) for _ in range(draws))
    left = sorted(kept(logits, **fields) - {5})
    weights = np.exp(logits[left].astype(np.float64) / 0.7)
    for token, probability in zip(left, weights / weights.sum(), strict=True):
        deviation = math.sqrt(draws * probability * (1 - probability))
        assert abs(counts[token] - draws * probability) < 5 * deviation + 1
    assert set(counts) <= set(left)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0 - 2.0**-53])
@pytest.mark.parametrize("temperature", [1e-9, 1.0, 2.0])
def test_a_token_without_probability_is_never_drawn(fraction: float, temperature: float) -> None:
    logits = np.array([-math.inf, -9e4, 3.0, 2.9, -9e4, -math.inf], np.float32)
    sampling = Sampling(max_tokens=1, temperature=temperature)
    assert sampling_module._draw(logits, 3.0, sampling, fraction) in {2, 3}


def test_a_seed_fixes_the_draws_and_no_seed_does_not() -> None:
    logits = row(4, 1.0)

    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(max_tokens=1, seed=seed), N)
        return [sampler.sample(logits) for _ in range(8)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_greedy_choices_follow_bias_and_penalties() -> None:
    logits = np.array([3.0, 2.0, 1.0], np.float32)

    def chosen(count: int, **fields: Any) -> list[int]:
        sampler = Sampler(Sampling(max_tokens=9, temperature=0.0, **fields), 3)
        return [sampler.sample(logits.copy()) for _ in range(count)]

    assert chosen(3) == [0, 0, 0]
    assert chosen(3, logit_bias=((0, -100.0),)) == [1, 1, 1]
    assert chosen(2, logit_bias=((2, 100.0),)) == [2, 2]
    assert chosen(4, presence_penalty=1.5) == [0, 1, 0, 0]
    assert chosen(6, frequency_penalty=0.75) == [0, 0, 1, 0, 1, 2]


def test_logits_are_left_alone_where_nothing_shifts_them() -> None:
    logits = row(5, 1.0)
    before = logits.copy()
    Sampler(Sampling(max_tokens=1, top_k=20, top_p=0.5, min_p=0.1), N).sample(logits)
    assert (logits == before).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_end_the_engine(bad: float, temperature: float) -> None:
    logits = row(6, 1.0)
    logits[17] = bad
    with pytest.raises(EngineFailed):
        Sampler(Sampling(max_tokens=1, temperature=temperature), N).sample(logits)


def test_closing_overwrites_what_was_sampled() -> None:
    sampler = Sampler(Sampling(max_tokens=1, temperature=0.0, presence_penalty=1.0), N)
    sampler.sample(row(7, 1.0))
    shift = sampler._shift
    assert shift is not None
    assert shift.values.any()
    assert shift._sampled.any()
    sampler.close()
    assert not shift.values.any()
    assert not shift._sampled.any()
    sampler.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", 2.01),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_k", -1),
        ("min_p", -0.1),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("presence_penalty", math.nan),
        ("logit_bias", ((10, 1.0),)),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((0, 100.1),)),
        ("logit_bias", ((0, math.nan),)),
        ("logit_bias", ((0, 1.0),) * 301),
        ("seed", -1),
        ("seed", 2**32),
        ("stop", ("a",) * 17),
        ("stop", ("",)),
        ("logprobs", -1),
        ("logprobs", 21),
    ],
)
def test_parameters_out_of_bounds_are_refused_by_name(field: str, value: object) -> None:
    fields: dict[str, Any] = {"max_tokens": 1, field: value}
    with pytest.raises(RefusedError) as refused:
        verify_sampling(Sampling(**fields), n_vocab=10)
    assert refused.value.field == field


@pytest.mark.engine
def test_an_answer_obeys_bias_and_penalties(bench: Bench) -> None:
    stream, prompt = bench.runner.open(), bench.prompt("hello there")
    plain = bench.answer(stream, prompt, Sampling(max_tokens=24, temperature=0))
    word = next(token for token, piece in enumerate(bench.vocabulary.pieces) if piece.strip().isalpha())
    forced = bench.answer(stream, prompt, Sampling(max_tokens=6, temperature=0, logit_bias=((word, 100.0),)))
    assert forced.strip() == bench.vocabulary.text_of([word] * 6).strip()
    # From the second on its penalty is larger than what its bias is above the others.
    fields: dict[str, Any] = {"logit_bias": ((word, 100.0), (word + 1, 99.0)), "presence_penalty": 2.0}
    varied = bench.answer(stream, prompt, Sampling(max_tokens=6, temperature=0, **fields))
    assert bench.vocabulary.text_of([word + 1]).strip() in varied
    assert bench.answer(stream, prompt, Sampling(max_tokens=24, temperature=0)) == plain

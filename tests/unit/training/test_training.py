"""The loop: what it learns from, that a seed repeats it, and that llama.cpp computes what PyTorch computed."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make torch")

from appliance.training.__main__ import export
from appliance.training.batches import IGNORED, Batches
from appliance.training.network import Network, Shape
from appliance.training.tokenizer import MARKS, SPACE
from appliance.training.train import Plan, train
from inference.engine.llama import Context, Model

pytestmark = [
    pytest.mark.engine,
    # PyTorch warns of its own parts when its compiler is imported.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),
]
PLAN = Plan(steps=6, batch_tokens=512, warm_up=2, checkpoint_steps=3)


@pytest.fixture(autouse=True)
def _uncompiled():
    # Compiling takes a minute and changes no behaviour.
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def small(tokenizer):
    return Shape(
        vocabulary=len(tokenizer.pieces), context=256, layers=2, dimensions=64, heads=2, kv_heads=2, hidden=96
    )


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def silent(_step, _loss, _speed):
    pass


def test_a_seed_trains_the_same_weights_again_and_another_seed_others(tokenizer, small, tmp_path):
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        runs.append(weights(train(tokenizer, small, replace(PLAN, seed=seed), tmp_path / name, silent)))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tokenizer, small, tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = weights(train(tokenizer, small, PLAN, tmp_path / "whole", silent))

    def cut(step, _loss, _speed):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tokenizer, small, PLAN, tmp_path / "cut", cut)
    steps = []
    resumed = train(tokenizer, small, PLAN, tmp_path / "cut", lambda step, _loss, _speed: steps.append(step))
    assert steps == [4, 5, 6]
    assert equal(whole, weights(resumed))


def test_a_checkpoint_of_another_plan_is_refused(tokenizer, small, tmp_path):
    train(tokenizer, small, PLAN, tmp_path, silent)
    with pytest.raises(SystemExit, match="another plan"):
        train(tokenizer, small, replace(PLAN, seed=2), tmp_path, silent)


def test_it_learns(tokenizer, small, tmp_path):
    losses = []
    plan = replace(PLAN, steps=40, checkpoint_steps=1000)
    train(tokenizer, small, plan, tmp_path, lambda _step, loss, _speed: losses.append(loss))
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_only_what_the_assistant_says_is_learned_and_positions_stay_in_the_context(tokenizer):
    batches = Batches(tokenizer, seed=1, steps=100, tokens=1024, context=512)
    end = tokenizer.ids["<|end|>"]
    gaps = False
    for step in (0, 20, *range(40, 64)):
        batch = batches[step]
        learned = batch.targets != IGNORED
        assert 0.05 < learned.mean() < 0.6
        assert (batch.targets == end).sum() >= len(batch.tokens)
        assert batch.positions.min() == 0
        assert batch.positions.max() < 512
        assert (np.diff(batch.positions, axis=1) >= 1).all()
        gaps |= bool((np.diff(batch.positions, axis=1) > 1).any())
    assert gaps


def test_batches_do_not_depend_on_where_a_run_began(tokenizer):
    first, second = (Batches(tokenizer, seed=1, steps=100, tokens=512, context=256) for _ in range(2))
    for step in range(12):
        _ = first[step]
    for name in ("tokens", "positions", "targets", "marks", "sources"):
        assert np.array_equal(getattr(first[11], name), getattr(second[11], name))


def test_every_token_is_taught_the_mark_it_stands_behind(tokenizer):
    batches = Batches(tokenizer, seed=1, steps=100, tokens=1024, context=512)
    rows = [row for step in range(8) for row in zip(batches[step].tokens, batches[step].marks, strict=True)]
    furthest = 0
    for tokens, marks in rows:
        nearest = 0
        for token, mark in zip(tokens, marks, strict=True):
            if mark == IGNORED:
                break
            piece = tokenizer.pieces[token].removeprefix(SPACE)
            nearest = int(piece[1:-1]) if piece in MARKS else nearest
            assert mark == nearest
        furthest = max(furthest, nearest)
    assert furthest > 1


def test_every_answer_is_taught_the_passage_it_is_taken_from(tokenizer):
    batches = Batches(tokenizer, seed=1, steps=100, tokens=1024, context=512)
    taught = set()
    for batch in (batches[step] for step in range(8)):
        assert ((batch.sources == IGNORED) == (batch.targets == IGNORED)).all()
        for sources, targets in zip(batch.sources, batch.targets, strict=True):
            for source, target in zip(sources, targets, strict=True):
                if target != IGNORED and (mark := tokenizer.mark(target)):
                    assert source == mark
            taught |= set(sources.tolist())
    assert {0, 1, 2} <= taught


def test_llama_cpp_computes_what_pytorch_computes(tokenizer, small, tmp_path):
    torch.manual_seed(3)
    network = Network(small)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    pin = export(network, tokenizer, tmp_path)
    tokens = tokenizer.encode("The mill opens at 08:30 and the north pump was repaired by Ilsa Renn.")
    with torch.no_grad():
        states, *_ = network(torch.tensor([tokens]), torch.arange(len(tokens))[None])
        wanted = (states[0, -1] @ network.embedding.weight.T).numpy()
    descriptor = os.open(pin.with_suffix(".gguf"), os.O_RDONLY)
    model = Model(descriptor)
    os.close(descriptor)
    context = Context(model, streams=1, stream_tokens=256, batch_tokens=256, threads=1)
    try:
        count = len(tokens)
        context.decode(tokens, range(count), [0] * count, [count - 1])
        got = context.logits(count - 1).copy()
    finally:
        context.close()
        model.close()
    # What is left is the error of eight-bit weights.
    assert np.corrcoef(wanted, got)[0, 1] > 0.998
    assert np.abs(wanted - got).max() < 0.15 * np.abs(wanted).max()

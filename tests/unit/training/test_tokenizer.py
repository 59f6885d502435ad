"""What the training reads is, token for token, what llama.cpp reads."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.reading.dialogues import Scale, draw_dialogue
from appliance.training.tokenizer import CONTROL, END, SPACE, Tokenizer, train_tokenizer

pytestmark = pytest.mark.engine


def in_llama(model, text):
    return model.tokenize(text.encode("utf-8", "replace"), parse_special=False)


def test_dialogues_have_the_tokens_that_llama_cpp_gives_them(tokenizer, model):
    random = Random(2)
    for _ in range(100):
        for message in draw_dialogue(random, Scale(passages=3, facts=3, fillers=2, questions=4, absent=2)):
            assert tokenizer.encode(message["content"]) == in_llama(model, message["content"])


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=60))
def test_any_text_has_the_tokens_that_llama_cpp_gives_it(tokenizer, model, text):
    # llama.cpp reads a C string's length from us, but its tokenizer of NUL bytes is nobody's promise.
    text = text.replace("\0", "")
    assert tokenizer.encode(text) == in_llama(model, text)


@given(text=st.text(alphabet="hetaons <|>/us:Aé▁\n0123", max_size=40))
def test_text_that_looks_like_syntax_has_no_control_token(tokenizer, text):
    control = {tokenizer.ids[piece] for piece in CONTROL}
    assert not control & set(tokenizer.encode(text + END + text))


def test_a_number_reads_the_same_wherever_it_stands(tokenizer):
    inside = [tokenizer.encode(text) for text in ("at 08:30.", "(08:30)", "08:30", "x 08:30, y")]
    number = [tokenizer.ids[character] for character in "08:30"]
    for tokens in inside:
        assert any(tokens[place : place + 5] == number for place in range(len(tokens)))


@pytest.mark.parametrize("number", range(1, 21))
def test_a_citation_mark_is_one_token(tokenizer, model, number):
    text = f"by Ilsa Renn [{number}].\n[{number}]"
    tokens = tokenizer.encode(text)
    assert tokens == in_llama(model, text)
    assert [tokenizer.pieces[token] for token in tokens if tokenizer.mark(token)] == [
        f"{SPACE}[{number}]",
        f"[{number}]",
    ]


@given(text=st.text(alphabet="[]0123 \na▁", max_size=30))
def test_brackets_of_any_kind_have_the_tokens_that_llama_cpp_gives_them(tokenizer, model, text):
    assert tokenizer.encode(text) == in_llama(model, text)


def test_a_conversation_marks_what_the_assistant_said(tokenizer):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    tokens, said = tokenizer.encode_chat(messages)
    spoken = [token for token, mark in zip(tokens, said, strict=True) if mark]
    assert spoken == [*tokenizer.encode("Hello!"), tokenizer.ids[END]]


def test_the_same_text_trains_the_same_tokenizer_and_a_file_keeps_it(tmp_path):
    texts = ["the mill opens at nine", "the mills opened then"] * 3
    first, second = (train_tokenizer(texts, 380) for _ in range(2))
    assert first.pieces == second.pieces
    first.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").pieces == first.pieces

"""A small language model of random weights, for the lab, the tests and the benches.

It is a real GGUF file of the llama architecture with a real SentencePiece tokenizer, so everything that serves a
model can be tried without downloading one: 4 layers, 256 dimensions, context 2048, about 6 MB. What it says is English
words in no order. The same seed gives the same bytes on every machine: all numbers come from integer draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType, TokenType
from numpy.typing import NDArray

from appliance.core.pin import Launch, Manifest, Runtime, pin_file
from appliance.models import gguf_file
from appliance.models.gguf_file import Header, Vocabulary

Floats = NDArray[np.float32]

_LAYERS, _DIM, _HEADS, _KV_HEADS, _HIDDEN, _CONTEXT = 4, 256, 4, 2, 512, 2048
_HEAD_DIM = _DIM // _HEADS
_SPACE = "\u2581"  # SentencePiece's visible space
_CONTROL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# Dimension 0 of the residual stream holds this constant: no layer reads or changes it, and the output matrix turns it
# into a bias per token. So the model says whole words, and its end token comes with a small, steady probability.
_ANCHOR = 32.0
_ANCHOR_NORMED = 10.3  # what the last norm leaves of it (measured; it varies by a tenth)
_BIAS_WORD, _BIAS_END, _BIAS_NEVER = 0.0, 3.0, -16.0

_VERBS = """accept act add agree allow answer appear ask believe build call change check claim clear close collect
compare connect consider contain count cover create decide deliver depend describe design detect develop discover draw
drop end enter examine exist expect explain fail fill find follow form gain gather generate give govern grow guard
handle happen hear help hold hope improve include increase inform join jump keep know land last laugh lead learn leave
limit link listen live load look love maintain mark matter mean measure meet mention miss move need note notice obtain
offer open order own pass perform place plan play point prepare present prevent print produce protect prove provide
pull push reach read receive record reduce reflect refuse remain remember remove repeat replace reply report represent
require rest result return reveal rise rule run say search see seem select send serve settle share show sign sleep
solve sound speak spend stand start state stay step stop store study succeed suggest support talk teach tell test
thank think touch trace train travel treat trust try turn understand use verify visit wait walk want warn watch win
wish wonder work write"""
_NOUNS = """age air animal area arm art bank base bird block board boat body book bridge brother building business
camera car case cause center chance child circle city class cloud coast color company computer corner country course
cup danger daughter day detail device distance document dog door doubt dream earth effect energy engine evening event
example eye face fact family farm father field fire fish floor flower food forest friend future game garden girl glass
goal gold ground group hand harbor head heart hill history home horse hour house idea image island job journey judge
key king lake language law leaf letter level library life light line list machine man map market meal member memory
message metal mile mind minute model moment money month moon morning mother mountain music name nation network night
north number ocean office opinion owner page paper parent part party path peace people person phone picture piece plant
plate power price problem process program purpose question rain reason region ring river road rock room root school
science sea season secret section sense sentence server service session ship side signal sister size sky snow society
soil son song source south space spring star stone story street student subject summer sun surface system table teacher
team thing thought time token town tree trip truth tunnel unit valley value village voice wall war water wave way
weather week west wheel wind window winter woman word world year"""
_PLAIN = """a about above across after again against ago all almost alone along already also although always among an
and another any anyone anything are around as at away back bad be beautiful because been before began behind being
below best better between big black blue both bright brown but by can careful certain clean cold common complete could
dark deep did different difficult do does done down dry during each early easy eight either else empty enough equal
even ever every everyone everything exact far fast few final fine first five for four free fresh from full general
gentle good gray great green had half happy hard has have he heavy her here high him his hot how however huge hundred
i if important in inside instead into is it its itself just kind known large late later least less let like likely
little local long lost loud low made main make many may me might million modern more most much must my narrow near
never new next nine no none nor not nothing now of off often old on once one only or other our out outside over past
perfect possible private public quick quiet quite rather ready real red rich right round safe said same second secure
seven several shall sharp she short should silent simple since six slow small so soft some someone something soon
special still straight strange strong such sudden sure sweet tall ten than that the their them then there these they
thick thin third this those though thousand three through thus to today together tomorrow too toward true twelve twenty
two under until up upon us usual very warm was we well were wet what when where whether which while white who whole why
wide wild will with within without wooden would wrong yellow yes yesterday yet you young your"""
_SUFFIXES = ("ing", "ed", "er", "ly", "es", "in", "an", "on", "th", "st", "en", "re", "al", "or", "ion")


@dataclass(frozen=True)
class _Token:
    text: str
    score: float
    kind: TokenType
    bias: float


def write_model(path: Path, *, seed: int = 1, ends: bool = True) -> None:
    """Write the model to `path`, over whatever is there.

    Args:
        path: Of the file.
        seed: Of the weights.
        ends: Answers end by themselves now and then; otherwise only where they must.
    """
    vocabulary = _vocabulary()
    if not ends:
        vocabulary = [
            replace(token, bias=_BIAS_NEVER) if token.text == "<|end|>" else token for token in vocabulary
        ]
    header = Header(
        "tiny-random",
        n_vocab=len(vocabulary),
        context=_CONTEXT,
        dim=_DIM,
        layers=_LAYERS,
        hidden=_HIDDEN,
        heads=_HEADS,
        kv_heads=_KV_HEADS,
        head_dim=_HEAD_DIM,
    )
    writer = gguf_file.begin(path, header)
    gguf_file.add_tokenizer(writer, _listed(vocabulary))
    for name, tensor, kind in _tensors(vocabulary, np.random.Generator(np.random.PCG64(seed))):
        writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    gguf_file.write_all(writer)


def synthetic_manifest(path: Path) -> Manifest:
    """Return the pin of the model that `write_model` wrote to `path`."""
    return Manifest(
        name="tiny-random",
        version="1.0",
        files=(pin_file(path),),
        chat_template=CHAT_TEMPLATE,
        stop=("<|end|>",),
        launch=Launch(context_tokens=_CONTEXT, max_sessions=8, batch_tokens=512),
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence=gguf_file.LICENCE,
        source="random weights, written by appliance.lab.synthetic_model",
    )


def add_tokenizer(writer: gguf.GGUFWriter, *, n_vocab: int) -> NDArray[np.bool_]:
    """Give another model this tokenizer, filled up with tokens that no text becomes.

    Returns:
        (n_vocab,) bool: the tokens that are whole words.

    Raises:
        ValueError: If `n_vocab` is less than the vocabulary has.
    """
    vocabulary = _vocabulary()
    if n_vocab < len(vocabulary):
        raise ValueError(f"the vocabulary has {len(vocabulary)} tokens")
    unused = range(n_vocab - len(vocabulary))
    vocabulary += [_Token(f"<|unused-{place}|>", -1e6, TokenType.UNUSED, _BIAS_NEVER) for place in unused]
    gguf_file.add_tokenizer(writer, _listed(vocabulary))
    return np.array([token.bias == _BIAS_WORD for token in vocabulary])


def _listed(vocabulary: list[_Token]) -> Vocabulary:
    texts, scores, kinds = zip(*((token.text, token.score, token.kind) for token in vocabulary), strict=True)
    return Vocabulary(texts, scores, kinds)


def _vocabulary() -> list[_Token]:
    """Build the vocabulary: special tokens, all 256 bytes, characters, suffixes, words.

    SentencePiece merges two neighbours at a time, so a word is reachable only if each of its beginnings is a piece as
    well; those beginnings are in the vocabulary for the tokenizer and biased away in the output.
    """
    tokens = [_Token("<unk>", 0.0, TokenType.UNKNOWN, _BIAS_NEVER)]
    tokens += [_Token(text, 0.0, TokenType.CONTROL, _BIAS_NEVER) for text in ("<s>", "</s>")]
    tokens += [_Token(f"<0x{byte:02X}>", 0.0, TokenType.BYTE, _BIAS_NEVER) for byte in range(256)]
    tokens += [
        _Token(text, 0.0, TokenType.CONTROL, _BIAS_END if text == "<|end|>" else _BIAS_NEVER)
        for text in _CONTROL
    ]
    words = whole_words()
    pieces = {_SPACE + word[:end] for word in words for end in range(len(word) + 1)}
    whole = {_SPACE + word for word in words}
    for piece in sorted(pieces):
        # Beginnings of words win over suffixes, so the letters of a known word are never merged from its middle.
        bias = _BIAS_WORD if piece in whole else _BIAS_NEVER
        tokens.append(_Token(piece, -float(len(piece)), TokenType.NORMAL, bias))
    for place, piece in enumerate((*_SUFFIXES, *(chr(code) for code in range(33, 127)))):
        bias = _BIAS_WORD if piece in {".", ","} else _BIAS_NEVER
        tokens.append(_Token(piece, -1000.0 - place, TokenType.NORMAL, bias))
    return tokens


def whole_words() -> set[str]:
    """Return the words of which each is one token."""
    verbs, nouns, plain = _VERBS.split(), _NOUNS.split(), _PLAIN.split()
    words = {*plain, *nouns, *verbs, *(word.capitalize() for word in plain)}
    words |= {word + "s" for word in (*nouns, *verbs) if word[-1] not in "sxyh"}
    stems = {verb.removesuffix("e") for verb in verbs}
    return words | {stem + ending for stem in stems for ending in ("ing", "ed")}


def _tensors(
    vocabulary: list[_Token], random: np.random.Generator
) -> list[tuple[str, Floats, GGMLQuantizationType]]:
    n_vocab = len(vocabulary)
    half, eighth, full = (
        GGMLQuantizationType.F16,
        GGMLQuantizationType.Q8_0,
        GGMLQuantizationType.F32,
    )
    embedding = _uniform(random, n_vocab, _DIM, 1.0)
    embedding[:, 0] = _ANCHOR
    output = _uniform(random, n_vocab, _DIM, 0.19)
    bias = np.array([token.bias for token in vocabulary], np.float32)
    output[bias != _BIAS_WORD] = 0.0
    output[:, 0] = bias / np.float32(_ANCHOR_NORMED)
    tensors = [
        ("token_embd.weight", embedding, half),
        ("output.weight", output, half),
        ("output_norm.weight", np.ones(_DIM, np.float32), full),
    ]
    unread = np.ones(_DIM, np.float32)
    unread[0] = 0.0  # no layer reads the anchor
    wide = 1.0 / _DIM**0.5
    for layer in range(_LAYERS):
        name = f"blk.{layer}"
        down = _unwritten(_uniform(random, _DIM, _HIDDEN, 2.0 / _HIDDEN**0.5))
        attention = _unwritten(_uniform(random, _DIM, _DIM, 4.0 * wide))
        tensors += [
            (f"{name}.attn_norm.weight", unread, full),
            (f"{name}.attn_q.weight", _uniform(random, _DIM, _DIM, 3.0 * wide), eighth),
            (f"{name}.attn_k.weight", _uniform(random, _KV_HEADS * _HEAD_DIM, _DIM, wide), eighth),
            (f"{name}.attn_v.weight", _uniform(random, _KV_HEADS * _HEAD_DIM, _DIM, wide), eighth),
            (f"{name}.attn_output.weight", attention, eighth),
            (f"{name}.ffn_norm.weight", unread, full),
            (f"{name}.ffn_gate.weight", _uniform(random, _HIDDEN, _DIM, wide), eighth),
            (f"{name}.ffn_up.weight", _uniform(random, _HIDDEN, _DIM, wide), eighth),
            (f"{name}.ffn_down.weight", down, eighth),
        ]
    return tensors


def _uniform(random: np.random.Generator, rows: int, columns: int, deviation: float) -> Floats:
    """Return a (rows, columns) float32 matrix, uniform with this standard deviation.

    Integers are drawn and scaled, since the floating-point distributions of numpy go through libm.
    """
    draws = random.integers(-32767, 32768, size=(rows, columns), dtype=np.int32)
    return draws.astype(np.float32) * np.float32(deviation * 3.0**0.5 / 32767)


def _unwritten(matrix: Floats) -> Floats:
    """Keep a layer from writing to the anchor."""
    matrix[0, :] = 0.0
    return matrix

"""A GGUF file that says anything out of the ordinary is refused before llama.cpp could see it, and none breaks the parser."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import pytest
from gguf_forge import METADATA, TENSORS, Tensor, gguf, text, value_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.core.errors import PinError
from appliance.lab.synthetic_model import write_model
from appliance.models import SHIPPED, read_model
from control.pins import gguf as parser


def parse(content: bytes) -> parser.Head:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return parser.parse_head(file.fileno())


def test_a_proper_file_is_read() -> None:
    head = parse(gguf())
    assert head.text("general.architecture") == "llama"
    assert head.whole("llama.context_length") == 4096
    assert head.metadata["tokenizer.ggml.add_bos_token"] is True
    assert (head.tensors, head.parameters) == (2, 8 + 64)
    assert parse(gguf(version=2)).tensors == 2


def test_what_the_format_s_own_library_writes_is_read(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    shipped = read_model(SHIPPED).weights
    for path, architecture in ((tmp_path / "model.gguf", "llama"), (shipped, "llama")):
        with path.open("rb") as file:
            head = parser.parse_head(file.fileno())
            assert head.text("general.architecture") == architecture
            tokens = head.metadata["tokenizer.ggml.tokens"]
            assert isinstance(tokens, parser.Array)
            eos = head.whole("tokenizer.ggml.eos_token_id")
            assert parser.read_texts(file.fileno(), tokens, {eos}) == {eos: "</s>"}


def array(kind: int, count: int, rest: bytes = b"") -> bytes:
    return struct.pack("<IIQ", 9, kind, count) + rest


BIG = 2**63
HOSTILE = {
    "nothing": b"",
    "another format": b"PK\3\4" + bytes(100),
    "another byte order": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "an old version": gguf(version=1),
    "a later version": gguf(version=4),
    "more tensors than it has": gguf(counts=(3, len(METADATA))),
    "countless tensors": gguf(counts=(BIG, 0)),
    "countless metadata": gguf(counts=(0, 2**64 - 1)),
    "a text longer than the file": gguf({"k": struct.pack("<IQ", 8, 2**40)}),
    "a text of 2^64 - 1 bytes": gguf({"k": struct.pack("<IQ", 8, 2**64 - 1)}),
    "a text that is not UTF-8": gguf({"k": struct.pack("<I", 8) + text(b"\xff\xfe")}),
    "a key that is not UTF-8": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"\xff") + value_of(1),
    "an unknown type": gguf({"k": struct.pack("<I", 13) + bytes(8)}),
    "a truth value of 2": gguf({"k": struct.pack("<IB", 7, 2)}),
    "an array of arrays": gguf({"k": array(9, 1, array(4, 1, bytes(4)))}),
    "an array of an unknown type": gguf({"k": array(99, 1, bytes(8))}),
    "a countless array": gguf({"k": array(4, BIG)}),
    "an array longer than the file": gguf({"k": array(12, 2**20)}),
    "a key twice": gguf({"k": value_of(1) + text("k") + value_of(2), "l": 1}, counts=(2, 3)),
    "no dimensions": gguf(tensors=[Tensor("a", ())]),
    "five dimensions": gguf(tensors=[Tensor("a", (1, 1, 1, 1, 1))]),
    "a dimension of 0": gguf(tensors=[Tensor("a", (8, 0))]),
    "dimensions whose product wraps around": gguf(tensors=[Tensor("a", (2**32, 2**32))]),
    "dimensions whose bytes wrap around": gguf(tensors=[Tensor("a", (2**62,))]),
    "part of a block": gguf(tensors=[Tensor("a", (33,), 8)]),
    "a type that was removed": gguf(tensors=[Tensor("a", (32,), 4)]),
    "a type of the future": gguf(tensors=[Tensor("a", (32,), 200)]),
    "the same tensor twice": gguf(tensors=[Tensor("a"), Tensor("a", offset=32)]),
    "overlapping tensors": gguf(tensors=[Tensor("a", (16,), size=64), Tensor("b", offset=32)]),
    "a tensor inside another": gguf(tensors=[Tensor("a", (64,), size=256), Tensor("b", offset=64)]),
    "an offset that is not aligned": gguf(tensors=[Tensor("a", offset=8)]),
    "an offset beyond the file": gguf(tensors=[Tensor("a", offset=2**40, size=-(2**40))]),
    "a tensor cut short": gguf()[:-1],
    "a tensor's name that is too long": gguf(tensors=[Tensor("n" * 64)]),
    "an alignment of 0": gguf({**METADATA, "general.alignment": 0}),
    "an alignment that is no power of two": gguf({**METADATA, "general.alignment": 24}),
    "an alignment beyond all bounds": gguf({**METADATA, "general.alignment": 2**31}),
    "a head cut short": gguf()[:100],
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_with_a_reason(content: bytes) -> None:
    with pytest.raises(PinError) as refused:
        parse(content)
    assert 10 < len(refused.value.message) < 120


def test_a_head_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 40))
    with path.open("r+b") as file:
        file.seek(0, 2)
        for number in range(40):
            file.write(text(f"k{number}") + array(12, 2**20))
            file.seek(2**23, 1)
        file.truncate()
    assert path.stat().st_size > parser.MAX_HEAD_BYTES
    with path.open("rb") as file, pytest.raises(PinError, match="longer than"):
        parser.parse_head(file.fileno())


@given(st.binary(max_size=300))
@example(b"GGUF")
@settings(deadline=None)
def test_noise_is_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(PinError):
        parse(b"GGUF" + struct.pack("<I", 3) + content)


PROPER = gguf()


@given(st.lists(st.tuples(st.integers(0, len(PROPER) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_parses_or_is_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(PROPER)
    for place, byte in changes:
        content[place] = byte
    try:
        head = parse(bytes(content))
    except PinError:
        return
    # Whatever still parses keeps the promise: tensors inside the file.
    assert head.tensors <= len(TENSORS)
    assert head.parameters < len(PROPER) * 256


@given(st.integers(0, len(PROPER) - 1))
@settings(deadline=None)
def test_no_beginning_of_a_file_is_a_file(length: int) -> None:
    with pytest.raises(PinError):
        parse(PROPER[:length])


def test_the_parser_leaves_the_descriptor_where_it_was() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(PROPER)
        file.seek(7)
        parser.parse_head(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 7

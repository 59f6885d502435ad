"""Reads the head of a GGUF file: what it says of itself, and where its tensors lie. Strict, bounded, and no byte of a tensor is read.

llama.cpp's own parser runs in C++ on whatever it is given; most of its published flaws were counts and offsets that nobody had looked at
before. So a file that says anything out of the ordinary here never reaches a node.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, ggml.h (types and their blocks).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Final

from appliance.core.errors import PinError

MAX_HEAD_BYTES: Final = 2**28  # vocabulary and merges of the largest models are some 20 MB
MAX_ENTRIES: Final = (
    2**16
)  # of metadata, and tensors: the largest models have a thousand of the one, thousands of the other
MAX_ELEMENTS: Final = 2**22  # of an array: vocabularies have some 300,000 tokens
MAX_KEY_BYTES: Final = 2**16 - 1  # the format's own
MAX_TEXT_BYTES: Final = 2**20
MAX_TENSOR_NAME_BYTES: Final = 63  # GGML_MAX_NAME with its final NUL
MAX_DIMENSIONS: Final = 4  # GGML_MAX_DIMS
MAX_ALIGNMENT: Final = 2**16
_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_READ_BYTES: Final = 2**18

# number of a type of metadata -> how struct(3) reads it; text and arrays are read by hand
_NUMBERS: Final = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_BOOL, _TEXT, _ARRAY = 7, 8, 9

# number of a type of tensor -> elements in a block, bytes of a block. What is not here was removed from ggml, or is newer than this.
_BLOCKS: Final = {
    0: (1, 4),
    1: (1, 2),
    30: (1, 2),
    28: (1, 8),  # F32, F16, BF16, F64
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),  # I8, I16, I32, I64
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),  # Q4_0 to Q8_1
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),  # K
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),  # IQ2_XXS to IQ4_NL
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),  # IQ3_S, IQ2_S, IQ4_XS, IQ1_M
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),  # TQ1_0, TQ2_0, MXFP4
}

Scalar = int | float | bool | str


@dataclass(frozen=True)
class Array:
    """An array of metadata, which is walked over and not kept.

    Attributes:
        kind: Number of its elements' type.
        count: How many.
        offset: Where the first lies in the file, in bytes.
    """

    kind: int
    count: int
    offset: int


@dataclass
class Head:
    """What a file says of itself.

    Attributes:
        metadata: By key.
        tensors: How many.
        parameters: Elements of all tensors.
    """

    metadata: dict[str, Scalar | Array] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0

    def text(self, key: str) -> str:
        """Return a text of the metadata, "" if there is none of this key."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def whole(self, key: str, default: int = 0) -> int:
        """Return a whole number of the metadata, `default` if there is none of this key."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default


def parse_head(descriptor: int) -> Head:
    """Parse the head of a file.

    Args:
        descriptor: Of the file, open for reading; its position does not matter and stays.

    Raises:
        PinError: If it is no GGUF file, or one that llama.cpp should not be given. The message says why and quotes nothing.
    """
    reader = _Reader(descriptor)
    if reader.take(4) != _MAGIC:
        raise PinError("not a GGUF file")
    if reader.number("<I") not in _VERSIONS:
        raise PinError("a GGUF file of another version than 2 or 3, or of another byte order")
    tensors = reader.count(MAX_ENTRIES, "tensors")
    entries = reader.count(MAX_ENTRIES, "metadata")
    head = Head(tensors=tensors)
    for _ in range(entries):
        key = reader.text(MAX_KEY_BYTES)
        if key in head.metadata:
            raise PinError("a key of the metadata is there twice")
        head.metadata[key] = _value(reader)
    _place_tensors(reader, head)
    return head


def read_texts(descriptor: int, array: Array, wanted: set[int]) -> dict[int, str]:
    """Return the elements of an array of texts that have these numbers.

    Raises:
        PinError: If one of them is no UTF-8.
    """
    if array.kind != _TEXT:
        return {}
    reader = _Reader(descriptor, array.offset)
    return {index: reader.text() for index in _walk(reader, array.count, wanted)}


def _walk(reader: _Reader, count: int, wanted: set[int]) -> Iterator[int]:
    """Yield each wanted number when the reader is at its text."""
    for index in range(min(count, max(wanted, default=-1) + 1)):
        if index in wanted:
            yield index
        else:
            reader.skip(reader.count(MAX_TEXT_BYTES, "bytes of text"))


def _value(reader: _Reader) -> Scalar | Array:
    kind = reader.number("<I")
    if kind == _ARRAY:
        return _array(reader)
    return _scalar(reader, kind)


def _scalar(reader: _Reader, kind: int) -> Scalar:
    if kind == _TEXT:
        return reader.text()
    if kind == _BOOL:
        return _bool(reader.take(1))
    if kind not in _NUMBERS:
        raise PinError("the metadata has a type that the format does not know")
    value: Scalar = struct.unpack(_NUMBERS[kind], reader.take(struct.calcsize(_NUMBERS[kind])))[0]
    return value


def _array(reader: _Reader) -> Array:
    kind, count = reader.number("<I"), reader.count(MAX_ELEMENTS, "elements of an array")
    array = Array(kind, count, reader.offset)
    if kind == _TEXT:
        for _ in range(count):
            reader.skip(reader.count(MAX_TEXT_BYTES, "bytes of text"))
    elif kind == _BOOL or kind in _NUMBERS:
        reader.skip(count * (1 if kind == _BOOL else struct.calcsize(_NUMBERS[kind])))
    else:  # arrays in arrays as well: the format has them, llama.cpp reads none
        raise PinError("the metadata has an array of a type that is not read")
    return array


def _bool(raw: bytes) -> bool:
    if raw not in (b"\0", b"\1"):
        raise PinError("a truth value of the metadata is neither 0 nor 1")
    return raw == b"\1"


def _place_tensors(reader: _Reader, head: Head) -> None:
    """Read the table of tensors; every one must lie behind the head, inside the file and apart from the others."""
    alignment = head.whole("general.alignment", 32)
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1) or alignment % 8:
        raise PinError("the alignment of the tensors is none")
    names: set[bytes] = set()
    places: list[tuple[int, int]] = []
    for _ in range(head.tensors):
        name = reader.take(reader.count(MAX_TENSOR_NAME_BYTES, "bytes of a tensor's name"))
        if name in names:
            raise PinError("a tensor is there twice")
        names.add(name)
        offset, size, elements = _tensor(reader)
        if offset % alignment:
            raise PinError("a tensor does not lie at a multiple of the alignment")
        places.append((offset, size))
        head.parameters += elements
    start = -(-reader.offset // alignment) * alignment
    end = 0
    for offset, size in sorted(places):
        if offset < end:
            raise PinError("two tensors overlap")
        end = offset + size
    if places and start + end > reader.size:
        raise PinError("a tensor reaches beyond the end of the file")


def _tensor(reader: _Reader) -> tuple[int, int, int]:
    """Read one row of the table; return offset and size in bytes, and how many elements it has."""
    dimensions = reader.number("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise PinError("a tensor has no dimensions, or more than four")
    shape = [reader.number("<Q") for _ in range(dimensions)]
    block = _BLOCKS.get(reader.number("<I"))
    offset = reader.number("<Q")
    if block is None:
        raise PinError("a tensor is of a type that this version does not know")
    # Python's numbers do not overflow; llama.cpp's do, so what does not fit into 63 bits is refused here.
    elements = prod(shape)
    if not 0 < elements < 2**63 or shape[0] % block[0]:
        raise PinError("a tensor has a shape that no tensor of its type has")
    return offset, elements // block[0] * block[1], elements


class _Reader:
    """Reads forward in pieces, never beyond the end of the file or of what a head may take."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        self.size = os.fstat(descriptor).st_size
        self.offset = offset
        self._descriptor = descriptor
        self._piece = b""
        self._begin = offset  # of the piece

    def take(self, length: int) -> bytes:
        """Return the next bytes."""
        begin = self._advance(length)
        if not self._begin <= begin or begin + length > self._begin + len(self._piece):
            self._begin, self._piece = begin, os.pread(self._descriptor, max(length, _READ_BYTES), begin)
        raw = self._piece[begin - self._begin : begin - self._begin + length]
        if len(raw) != length:
            raise PinError("the file ends in its head")
        return raw

    def skip(self, length: int) -> None:
        """Pass over the next bytes."""
        self._advance(length)

    def number(self, form: str) -> int:
        """Return the next whole number."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def count(self, most: int, what: str) -> int:
        """Return the next 64-bit count, which is bounded before anything is read or made by it."""
        value = self.number("<Q")
        if value > most:
            raise PinError(f"more than {most} {what}")
        return value

    def text(self, most: int = MAX_TEXT_BYTES) -> str:
        """Return the next text."""
        try:
            return self.take(self.count(most, "bytes of text")).decode("utf-8")
        except UnicodeDecodeError:
            raise PinError("a text of the head is not UTF-8") from None

    def _advance(self, length: int) -> int:
        begin = self.offset
        if begin + length > self.size:
            raise PinError("the file ends in its head")
        if begin + length > MAX_HEAD_BYTES:
            raise PinError(f"the head is longer than {MAX_HEAD_BYTES} bytes")
        self.offset += length
        return begin

"""Signed notes: text that ends in a newline, an empty line, and a line for each signature (c2sp.org/signed-note).

A key is known by its name and four bytes of a hash over name, kind and key. What unknown keys signed is ignored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from appliance.transparency.errors import LogFormatError

MOST_SIGNATURES: Final = 32
MOST_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(r"[^\s+]+\Z")
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f]")
_DASH: Final = "\N{EM DASH}"


class Kind(IntEnum):
    """What a key signs, as the first byte of an encoded key says it."""

    ED25519 = 0x01
    MLDSA44_COSIGNATURE = 0x06


_KEY_BYTES: Final = {Kind.ED25519: 32, Kind.MLDSA44_COSIGNATURE: 1312}


@dataclass(frozen=True)
class VerifierKey:
    """A public key that signs notes.

    Attributes:
        name: Of whom it is.
        kind: What it signs, and how.
        public: Its bytes.
    """

    name: str
    kind: Kind
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that go before each of its signatures."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public).digest()[:4]

    def render(self) -> str:
        """Return it as text: name, id and key with plus signs between them (a "vkey")."""
        return f"{self.name}+{self.id.hex()}+{encode(bytes((self.kind,)) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read what `render` writes.

        Raises:
            LogFormatError: If it is anything else.
        """
        name, _, rest = text.partition("+")
        _, _, encoded = rest.partition("+")
        data = decode(encoded, "key")
        if not _NAME.match(name) or not data or data[0] not in _KEY_BYTES:
            raise LogFormatError("not the key of a log or a witness", field="key")
        key = cls(name, Kind(data[0]), data[1:])
        if len(key.public) != _KEY_BYTES[key.kind] or key.render() != text:
            raise LogFormatError("not the key of a log or a witness", field="key")
        return key


@dataclass(frozen=True)
class Signature:
    """A signature line.

    Attributes:
        name: Of the key.
        key_id: Four bytes.
        data: What the key made.
    """

    name: str
    key_id: bytes
    data: bytes

    def by(self, key: VerifierKey) -> bool:
        """Whether it says that this key made it."""
        return (self.name, self.key_id) == (key.name, key.id)

    def render(self) -> str:
        """Return the line without its newline."""
        return f"{_DASH} {self.name} {encode(self.key_id + self.data)}"


@dataclass(frozen=True)
class Note:
    """Text and its signatures.

    Attributes:
        text: Ends in a newline.
        signatures: In order, at least one.
    """

    text: str
    signatures: tuple[Signature, ...]

    def render(self) -> bytes:
        """Return the note."""
        lines = "".join(f"{signature.render()}\n" for signature in self.signatures)
        return f"{self.text}\n{lines}".encode()

    def cosigned(self, *cosignatures: Signature) -> Note:
        """Return it with more signatures; one of a name that is there already replaces that one."""
        named = {signature.name for signature in cosignatures}
        kept = tuple(signature for signature in self.signatures if signature.name not in named)
        return Note(self.text, (*kept, *cosignatures))

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a note; nothing is verified.

        Raises:
            LogFormatError: If it is not byte for byte what `render` would write.
        """
        if len(data) > MOST_BYTES:
            raise LogFormatError("a note of this size", field="note")
        try:
            text, separator, lines = data.decode("utf-8").rpartition("\n\n")
        except UnicodeDecodeError:
            raise LogFormatError("not UTF-8", field="note") from None
        if not separator or not text or _CONTROL.search(text) or not lines.endswith("\n"):
            raise LogFormatError("not a signed note", field="note")
        signatures = tuple(parse_signature(line) for line in lines[:-1].split("\n"))
        if len(signatures) > MOST_SIGNATURES:
            raise LogFormatError("too many signatures", field="note")
        return cls(f"{text}\n", signatures)


def parse_signature(line: str) -> Signature:
    """Read a signature line.

    Raises:
        LogFormatError: If it is none.
    """
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not _NAME.match(parts[1]) or _CONTROL.search(line):
        raise LogFormatError("not a signature line", field="signature")
    data = decode(parts[2], "signature")
    if len(data) <= 4:
        raise LogFormatError("not a signature", field="signature")
    return Signature(parts[1], data[:4], data[4:])


def encode(data: bytes) -> str:
    """Return base64 (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str, field: str) -> bytes:
    """Read base64; refuse a second spelling of the same bytes.

    Raises:
        LogFormatError: If it is none.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise LogFormatError("not base64", field=field) from None
    if encode(data) != text:
        raise LogFormatError("a second spelling of base64", field=field)
    return data

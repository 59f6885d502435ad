"""Bech32 as age writes its keys (BIP 173, without the limit of 90 characters): text that people copy, with a checksum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appliance.core.errors import RefusedError

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM: Final = 6  # characters


def encode_bech32(prefix: str, data: bytes) -> str:
    """Return lower-case bech32 of some bytes."""
    values = list(_regroup(data, 8, 5, pad=True))
    state = _polymod([*_expand(prefix), *values, *[0] * _CHECKSUM]) ^ 1
    values += [state >> 5 * (_CHECKSUM - 1 - place) & 31 for place in range(_CHECKSUM)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in values)}"


def decode_bech32(prefix: str, text: str) -> bytes:
    """Return the bytes of a bech32 text, which is all lower or all upper case.

    Raises:
        RefusedError: If it is not one with this prefix, or has a second spelling.
    """
    lower = text.lower()
    found, _, rest = lower.rpartition("1")
    if text not in (lower, text.upper()) or found != prefix or not set(rest) <= set(_ALPHABET):
        raise RefusedError(f"not a text that begins with {prefix}1", field="key")
    values = [_ALPHABET.index(character) for character in rest]
    if len(values) < _CHECKSUM or _polymod([*_expand(prefix), *values]) != 1:
        raise RefusedError("mistyped: the checksum is another", field="key")
    data = bytes(_regroup(values[:-_CHECKSUM], 5, 8, pad=False))
    if encode_bech32(prefix, data) != lower:
        raise RefusedError("a second spelling of the key", field="key")
    return data


def _expand(prefix: str) -> list[int]:
    return [*(ord(character) >> 5 for character in prefix), 0, *(ord(character) & 31 for character in prefix)]


def _polymod(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            state ^= generator if top >> place & 1 else 0
    return state


def _regroup(values: Iterable[int], have: int, want: int, *, pad: bool) -> Iterable[int]:
    """Yield the same bits in groups of another width; bits that fill no group are padded, or left out."""
    buffer = bits = 0
    for value in values:
        buffer, bits = buffer << have | value, bits + have
        while bits >= want:
            bits -= want
            yield buffer >> bits & ((1 << want) - 1)
    if pad and bits:
        yield buffer << (want - bits) & ((1 << want) - 1)

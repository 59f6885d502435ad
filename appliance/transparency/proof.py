"""Proofs as files: that a log holds an entry (c2sp.org/tlog-proof), and that it continues what was seen of it before
(the request of c2sp.org/tlog-witness). Both end in a signed checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import ConsistencyError, LogFormatError
from appliance.transparency.merkle import (
    HASH_BYTES,
    MOST_PROOF_HASHES,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from appliance.transparency.note import Note, decode, encode

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})\Z", re.ASCII)
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})\Z", re.ASCII)


@dataclass(frozen=True)
class Proof:
    """That a log holds an entry.

    Attributes:
        index: Its place, from 0.
        hashes: From the leaf's sibling to the root's child.
        checkpoint: The signed head of the tree.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Note

    def render(self) -> bytes:
        """Return the file."""
        lines = [_FIRST, f"index {self.index}", *map(encode, self.hashes), ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint.render()

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """Read a file; nothing is verified. Our proofs have no `extra` line.

        Raises:
            LogFormatError: If it is not byte for byte what `render` would write.
        """
        lines, checkpoint = _read(data)
        found = _INDEX.match(lines[1]) if len(lines) > 1 else None
        if lines[0] != _FIRST or not found:
            raise LogFormatError("not a proof", field="proof")
        return cls(int(found[1]), _hashes(lines[2:]), checkpoint)

    def verify(self, entry: bytes, policy: Policy) -> Checkpoint:
        """Return the checkpoint of a tree that holds an entry.

        Raises:
            LogError: As `Policy.verify` and `verify_inclusion`.
        """
        checkpoint = policy.verify(self.checkpoint)
        verify_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint


@dataclass(frozen=True)
class Continuation:
    """That a tree continues an earlier one: what a witness is asked to cosign, and what a client asks for.

    Attributes:
        old: Size of the earlier tree.
        hashes: As `merkle.consistency_proof`.
        checkpoint: The signed head of the later one.
    """

    old: int
    hashes: tuple[bytes, ...]
    checkpoint: Note

    def render(self) -> bytes:
        """Return the text."""
        lines = [f"old {self.old}", *map(encode, self.hashes), ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint.render()

    @classmethod
    def parse(cls, data: bytes) -> Continuation:
        """Read a text; nothing is verified.

        Raises:
            LogFormatError: If it is not byte for byte what `render` would write.
        """
        lines, checkpoint = _read(data)
        if not (found := _OLD.match(lines[0])):
            raise LogFormatError("not a proof", field="proof")
        return cls(int(found[1]), _hashes(lines[1:]), checkpoint)

    def verify(self, seen: Checkpoint, policy: Policy) -> Checkpoint:
        """Return the later checkpoint, which continues the one that was seen.

        Raises:
            LogError: As `Policy.verify` and `verify_consistency`.
        """
        checkpoint = policy.verify(self.checkpoint)
        if self.old != seen.size:
            raise ConsistencyError(
                "the proof begins at another size",
                field="old",
                hint=f"ask for one that begins at {seen.size}",
            )
        verify_consistency(seen.size, checkpoint.size, self.hashes, seen.root, checkpoint.root)
        return checkpoint


def _read(data: bytes) -> tuple[list[str], Note]:
    """Return the lines before the checkpoint, and the checkpoint."""
    head, separator, checkpoint = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise LogFormatError("not a proof", field="proof") from None
    if not separator:
        raise LogFormatError("not a proof", field="proof")
    return lines, Note.parse(checkpoint)


def _hashes(lines: list[str]) -> tuple[bytes, ...]:
    hashes = tuple(decode(line, "proof") for line in lines)
    if len(hashes) > MOST_PROOF_HASHES or any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise LogFormatError("not a proof", field="proof")
    return hashes

"""Proofs of inclusion as files: a place, the hashes from the leaf to the root, and a signed checkpoint (c2sp.org/tlog-proof)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import LogFormatError
from appliance.transparency.merkle import HASH_BYTES, MOST_PROOF_HASHES, leaf_hash, verify_inclusion
from appliance.transparency.note import Note, decode, encode

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})\Z", re.ASCII)


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
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise LogFormatError("not a proof", field="proof") from None
        if not separator or lines[0] != _FIRST or len(lines) < 2 or not (found := _INDEX.match(lines[1])):
            raise LogFormatError("not a proof", field="proof")
        hashes = tuple(decode(line, "proof") for line in lines[2:])
        if len(hashes) > MOST_PROOF_HASHES or any(len(hash_) != HASH_BYTES for hash_ in hashes):
            raise LogFormatError("not a proof", field="proof")
        return cls(int(found[1]), hashes, Note.parse(checkpoint))

    def verify(self, entry: bytes, policy: Policy) -> Checkpoint:
        """Return the checkpoint of a tree that holds an entry.

        Raises:
            LogError: As `Policy.verify` and `verify_inclusion`.
        """
        checkpoint = policy.verify(self.checkpoint)
        verify_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint

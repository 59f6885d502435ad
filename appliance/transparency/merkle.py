"""Merkle tree hashes and proofs (RFC 6962 section 2.1; the verifying algorithms are those of RFC 9162 section 2.1). Pure.

A tree over n entries is the tree over the first k of them beside the tree over the rest, k the largest power of two below n.
So every left part is complete, and whoever knows the hashes of complete subtrees can compute all else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from appliance.transparency.errors import ConsistencyError, InclusionError

HASH_BYTES: Final = 32
MOST_PROOF_HASHES: Final = 63  # a tree of 2^63 entries has no longer proofs
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


class Subtrees(Protocol):
    """What computes roots and proofs."""

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash of the complete subtree over the 2^level entries from `index * 2^level` on."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(subtrees: Subtrees, size: int) -> bytes:
    """Return the root of the tree over the first `size` entries."""
    return _range_hash(subtrees, 0, size) if size else EMPTY_ROOT


def inclusion_proof(subtrees: Subtrees, index: int, size: int) -> list[bytes]:
    """Return the hashes that lead from entry `index` to the root over `size` entries, the leaf's sibling first.

    Raises:
        InclusionError: If there is no such entry.
    """
    if not 0 <= index < size:
        raise InclusionError("there is no such entry", field="index")
    proof = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            proof.append(_range_hash(subtrees, middle, stop))
            stop = middle
        else:
            proof.append(_range_hash(subtrees, start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(subtrees: Subtrees, old: int, new: int) -> list[bytes]:
    """Return the hashes that show that the tree over `new` entries continues the one over `old`.

    Raises:
        ConsistencyError: If the tree shrank.
    """
    if not 0 <= old <= new:
        raise ConsistencyError("the later tree is the smaller one", field="size")
    if old in (0, new):
        return []
    proof = []
    start, stop = 0, new
    known = True  # whether the subtree in view is the whole earlier tree, whose root the verifier has
    while old - start < stop - start:
        middle = start + _split(stop - start)
        if old <= middle:
            proof.append(_range_hash(subtrees, middle, stop))
            stop = middle
        else:
            proof.append(_range_hash(subtrees, start, middle))
            start, known = middle, False
    if not known:
        proof.append(_range_hash(subtrees, start, stop))
    return proof[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes
) -> None:
    """Check that a tree holds a leaf; return None or raise (RFC 9162 section 2.1.3.2).

    Args:
        leaf: Its hash.
        index: Its place.
        size: Of the tree.
        proof: As `inclusion_proof` returns it.
        expected_root: Of the tree.

    Raises:
        InclusionError: If the proof does not show it.
    """
    if not 0 <= index < size:
        raise InclusionError("the place is not in the tree", field="index")
    place, last, computed = index, size - 1, leaf
    for hash_ in proof:
        if last == 0:
            raise InclusionError("the proof is too long", field="proof")
        if place & 1 or place == last:
            computed = node_hash(hash_, computed)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            computed = node_hash(computed, hash_)
        place, last = place >> 1, last >> 1
    if last or computed != expected_root:
        raise InclusionError("the proof does not lead to the root", field="proof")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that a tree continues an earlier one; return None or raise (RFC 9162 section 2.1.4.2).

    Every tree continues the empty one, and no proof is needed for that.

    Args:
        old, new: Sizes.
        proof: As `consistency_proof` returns it.
        old_root, new_root: Roots.

    Raises:
        ConsistencyError: If the proof does not show it.
    """
    if not 0 <= old <= new:
        raise ConsistencyError("the later tree is the smaller one", field="size")
    if old in (0, new):
        if proof or (old == new and old_root != new_root):
            raise ConsistencyError("trees of one size have different roots", field="root")
        return
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        raise ConsistencyError("the proof is too short", field="proof")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_computed = new_computed = hashes[0]
    for hash_ in hashes[1:]:
        if last == 0:
            raise ConsistencyError("the proof is too long", field="proof")
        if place & 1 or place == last:
            old_computed, new_computed = node_hash(hash_, old_computed), node_hash(hash_, new_computed)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new_computed = node_hash(new_computed, hash_)
        place, last = place >> 1, last >> 1
    if last or old_computed != old_root or new_computed != new_root:
        raise ConsistencyError("the proof does not lead to the roots", field="proof")


def _range_hash(subtrees: Subtrees, start: int, stop: int) -> bytes:
    """Return the hash over the entries of a range that some tree's recursion meets."""
    size = stop - start
    if size & (size - 1) == 0:
        return subtrees.subtree(size.bit_length() - 1, start // size)
    middle = start + _split(size)
    return node_hash(_range_hash(subtrees, start, middle), _range_hash(subtrees, middle, stop))


def _split(size: int) -> int:
    """Return the largest power of two below a size of at least 2."""
    return 1 << ((size - 1).bit_length() - 1)

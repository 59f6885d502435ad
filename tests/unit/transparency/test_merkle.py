"""The tree: hashes as RFC 6962 defines them, proofs that show what is so and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transparency_world import Tree, entries, mth

from appliance.transparency.errors import ConsistencyError, InclusionError
from appliance.transparency.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The vectors of Certificate Transparency's reference implementation: eight entries, the root after each.
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
SIZES = st.integers(1, 70)


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert root(Tree(ENTRIES), size).hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert root(Tree([]), 0) == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", range(1, 34))
def test_every_entry_of_every_tree_is_proven_and_no_other_is(size: int) -> None:
    tree = Tree(entries(size))
    top = mth(tree.entries)
    for index, entry in enumerate(tree.entries):
        proof = inclusion_proof(tree, index, size)
        assert len(proof) <= (size - 1).bit_length()
        verify_inclusion(leaf_hash(entry), index, size, proof, top)
        for other in {0, index + 1, size - 1} - {index}:
            with pytest.raises(InclusionError):
                verify_inclusion(leaf_hash(entry), other, size, proof, top)
        with pytest.raises(InclusionError):
            verify_inclusion(leaf_hash(b"another entry"), index, size, proof, top)


@pytest.mark.parametrize("new", range(1, 34))
def test_every_tree_is_shown_to_continue_every_earlier_one(new: int) -> None:
    tree = Tree(entries(new))
    for old in range(new + 1):
        proof = consistency_proof(tree, old, new)
        verify_consistency(old, new, proof, mth(tree.entries[:old]), mth(tree.entries))
        if 0 < old < new:
            with pytest.raises(ConsistencyError):
                verify_consistency(old, new, proof, mth([b"forged", *tree.entries[1:old]]), mth(tree.entries))
            forged = mth([b"forged", *tree.entries[1:]])
            with pytest.raises(ConsistencyError):
                verify_consistency(old, new, proof, mth(tree.entries[:old]), forged)


@given(SIZES, SIZES, st.data())
def test_a_changed_dropped_or_added_hash_proves_nothing(one: int, other: int, data: st.DataObject) -> None:
    old, new = sorted((one, other))
    tree = Tree(entries(new))
    roots = mth(tree.entries[:old]), mth(tree.entries)
    proof = consistency_proof(tree, old, new)
    index = data.draw(st.integers(0, new - 1))
    path = inclusion_proof(tree, index, new)
    for honest, check, error in (
        (proof, lambda made: verify_consistency(old, new, made, *roots), ConsistencyError),
        (
            path,
            lambda made: verify_inclusion(leaf_hash(tree.entries[index]), index, new, made, roots[1]),
            InclusionError,
        ),
    ):
        check(honest)
        forgeries = [[*honest, bytes(32)], [bytes(32), *honest]]
        if honest:
            place = data.draw(st.integers(0, len(honest) - 1))
            changed = bytes((honest[place][0] ^ 1,)) + honest[place][1:]
            forgeries += [
                [*honest[:place], *honest[place + 1 :]],
                [*honest[:place], changed, *honest[place + 1 :]],
            ]
        for forged in forgeries:
            with pytest.raises(error):
                check(forged)


def test_trees_do_not_shrink_and_places_are_in_the_tree() -> None:
    tree = Tree(entries(4))
    with pytest.raises(ConsistencyError):
        consistency_proof(tree, 4, 3)
    with pytest.raises(ConsistencyError):
        verify_consistency(4, 3, [], bytes(32), bytes(32))
    with pytest.raises(ConsistencyError):
        verify_consistency(4, 4, [], bytes(32), mth(tree.entries))
    for index in (-1, 4):
        with pytest.raises(InclusionError):
            inclusion_proof(tree, index, 4)
        with pytest.raises(InclusionError):
            verify_inclusion(bytes(32), index, 4, [], bytes(32))

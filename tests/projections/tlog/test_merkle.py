"""The Merkle tree, compared with published examples and with its definition."""

import random
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.tlog.merkle import (
    EMPTY_ROOT,
    CompactRange,
    Node,
    consistency_proof,
    hash_at,
    hashes_of_leaf,
    inclusion_proof,
    leaf_hash,
    leaf_that_completes,
    root,
    steps_to_root,
    verify_consistency,
    verify_inclusion,
)
from tests.domain.builders import PATIENT

# The eight leaves that the implementations of Certificate Transparency are tested with, and what
# they publish of them.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        *("", "00", "10", "2021", "3031", "40414243"),
        *("5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
]
ROOTS = [
    bytes.fromhex(published)
    for published in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
LEAF_0 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
LEAF_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
LEAF_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
LEAF_6 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
PAIR_0 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
PAIR_1 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
PAIR_2 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
PAIR_3 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
FOUR_0 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
FOUR_1 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"


class StoredTree:
    """A tree as a database keeps it: the hashes of each leaf, and how often it was asked."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.asked: list[list[Node]] = []
        self.stored: list[bytes] = []
        for entry in entries:
            self.stored.append(hashes_of_leaf(len(self.stored), entry, self.read))

    def read(self, nodes: Sequence[Node]) -> list[bytes]:
        self.asked.append(list(nodes))
        found = [hash_at(node[0], self.stored[leaf_that_completes(node)]) for node in nodes]
        assert all(len(each) == 32 for each in found), "only complete nodes are stored"
        return found


def defined_root(entries: Sequence[bytes]) -> bytes:
    """The definition of section 2.1.1, as it stands there."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = defined_split(len(entries))
    return sha256(b"\x01" + defined_root(entries[:k]) + defined_root(entries[k:])).digest()


def defined_path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """The definition of section 2.1.3.1."""
    if len(entries) == 1:
        return []
    k = defined_split(len(entries))
    if m < k:
        return [*defined_path(m, entries[:k]), defined_root(entries[k:])]
    return [*defined_path(m - k, entries[k:]), defined_root(entries[:k])]


def defined_proof(m: int, entries: Sequence[bytes], *, known: bool = True) -> list[bytes]:
    """The definition of section 2.1.4.1."""
    if m == len(entries):
        return [] if known else [defined_root(entries)]
    k = defined_split(len(entries))
    if m <= k:
        return [*defined_proof(m, entries[:k], known=known), defined_root(entries[k:])]
    return [*defined_proof(m - k, entries[k:], known=False), defined_root(entries[:k])]


def defined_split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def hexed(hashes: Sequence[bytes]) -> list[str]:
    return [each.hex() for each in hashes]


class TestPublishedTree:
    @pytest.mark.parametrize("size", range(9))
    def test_roots(self, size: int) -> None:
        assert root(size, StoredTree(LEAVES).read) == ROOTS[size]

    def test_an_empty_tree_has_the_hash_of_nothing(self) -> None:
        assert ROOTS[0] == EMPTY_ROOT

    @pytest.mark.parametrize(
        ("leaf_index", "size", "published"),
        [
            (0, 1, []),
            (0, 8, [LEAF_1, PAIR_1, FOUR_1]),
            (5, 8, [LEAF_4, PAIR_3, FOUR_0]),
            (2, 3, [PAIR_0]),
            (1, 5, [LEAF_0, PAIR_1, LEAF_4]),
        ],
    )
    def test_inclusion(self, leaf_index: int, size: int, published: list[str]) -> None:
        proof = inclusion_proof(leaf_index, size, StoredTree(LEAVES).read)

        assert hexed(proof) == published
        assert verify_inclusion(leaf_hash(LEAVES[leaf_index]), leaf_index, size, proof, ROOTS[size])

    @pytest.mark.parametrize(
        ("old_size", "new_size", "published"),
        [
            (1, 1, []),
            (1, 8, [LEAF_1, PAIR_1, FOUR_1]),
            (6, 8, [PAIR_2, PAIR_3, FOUR_0]),
            (2, 5, [PAIR_1, LEAF_4]),
            (6, 7, [PAIR_2, LEAF_6, FOUR_0]),
        ],
    )
    def test_consistency(self, old_size: int, new_size: int, published: list[str]) -> None:
        proof = consistency_proof(old_size, new_size, StoredTree(LEAVES).read)

        assert hexed(proof) == published
        assert verify_consistency(old_size, new_size, proof, ROOTS[old_size], ROOTS[new_size])


entries = st.lists(st.binary(max_size=3), max_size=70)
"""Short ones, so that equal leaves occur."""


@PATIENT
@given(entries)
def test_the_stored_tree_is_the_defined_one(entries: list[bytes]) -> None:
    tree = StoredTree(entries)

    assert [root(size, tree.read) for size in range(len(entries) + 1)] == [
        defined_root(entries[:size]) for size in range(len(entries) + 1)
    ]


@PATIENT
@given(entries, st.integers(0, 70))
def test_leaves_appended_in_bulk_are_stored_as_if_one_by_one(
    entries: list[bytes], begun_at: int
) -> None:
    tree = StoredTree(entries)
    begun_at = min(begun_at, len(entries))

    growth = CompactRange(begun_at, tree.read)

    assert [growth.append(entry) for entry in entries[begun_at:]] == tree.stored[begun_at:]
    assert growth.size == len(entries)
    assert growth.root() == defined_root(entries)


def an_index(data: st.DataObject, below: int) -> int:
    return data.draw(st.integers(0, below - 1))


@PATIENT
@given(entries.filter(bool), st.data())
def test_every_inclusion_proof_equals_the_definition(
    entries: list[bytes], data: st.DataObject
) -> None:
    size = 1 + an_index(data, len(entries))
    leaf_index = an_index(data, size)

    proof = inclusion_proof(leaf_index, size, StoredTree(entries).read)

    assert proof == defined_path(leaf_index, entries[:size])
    leaf, top = leaf_hash(entries[leaf_index]), defined_root(entries[:size])
    assert verify_inclusion(leaf, leaf_index, size, proof, top)
    steps = steps_to_root(leaf, leaf_index, size, proof)
    assert [leaf, *(step.node for step in steps)][-1] == top
    assert [step.sibling for step in steps] == proof


@PATIENT
@given(entries.filter(bool), st.data())
def test_every_consistency_proof_equals_the_definition(
    entries: list[bytes], data: st.DataObject
) -> None:
    new_size = 1 + an_index(data, len(entries))
    old_size = 1 + an_index(data, new_size)

    proof = consistency_proof(old_size, new_size, StoredTree(entries).read)

    assert proof == defined_proof(old_size, entries[:new_size])
    old, new = defined_root(entries[:old_size]), defined_root(entries[:new_size])
    assert verify_consistency(old_size, new_size, proof, old, new)


def altered(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """A proof with a flipped bit, without one hash, with one more, or with two exchanged."""
    proof = list(proof)
    which = an_index(data, len(proof)) if proof else 0
    ways = ["lengthen"] + ["flip", "drop", "swap", "cut"] * bool(proof)
    match data.draw(st.sampled_from(ways)):
        case "flip":
            proof[which] = flipped(data, proof[which])
        case "drop":
            del proof[which]
        case "swap":
            other = an_index(data, len(proof))
            proof[which], proof[other] = proof[other], proof[which]
        case "cut":
            proof[which] = proof[which][:-1]
        case _:
            proof.insert(which, data.draw(st.binary(min_size=32, max_size=32)))
    return proof


def flipped(data: st.DataObject, value: bytes) -> bytes:
    bit = an_index(data, 8 * len(value))
    return bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(value))


@PATIENT
@given(entries.filter(bool), st.data())
def test_no_altered_inclusion_proof_is_accepted(entries: list[bytes], data: st.DataObject) -> None:
    size = 1 + an_index(data, len(entries))
    leaf_index = an_index(data, size)
    proof = inclusion_proof(leaf_index, size, StoredTree(entries).read)
    leaf, top = leaf_hash(entries[leaf_index]), defined_root(entries[:size])

    changed = altered(data, proof)

    assert verify_inclusion(leaf, leaf_index, size, changed, top) == (changed == proof)
    assert not verify_inclusion(flipped(data, leaf), leaf_index, size, proof, top)
    assert not verify_inclusion(leaf, leaf_index, size, proof, flipped(data, top))
    assert not verify_inclusion(leaf, size, size, proof, top)
    assert not verify_inclusion(leaf, -1, size, proof, top)


@PATIENT
@given(entries.filter(bool), st.data())
def test_no_altered_consistency_proof_is_accepted(
    entries: list[bytes], data: st.DataObject
) -> None:
    new_size = 1 + an_index(data, len(entries))
    old_size = 1 + an_index(data, new_size)
    proof = consistency_proof(old_size, new_size, StoredTree(entries).read)
    old, new = defined_root(entries[:old_size]), defined_root(entries[:new_size])

    changed = altered(data, proof)

    assert verify_consistency(old_size, new_size, changed, old, new) == (changed == proof)
    assert not verify_consistency(old_size, new_size, proof, flipped(data, old), new)
    assert not verify_consistency(old_size, new_size, proof, old, flipped(data, new))
    assert not verify_consistency(new_size + 1, new_size, proof, old, new)


@PATIENT
@given(st.data())
def test_a_proof_holds_for_one_leaf_index_only(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 70))
    different = [b"%d" % number for number in range(size)]
    leaf_index, other = an_index(data, size), an_index(data, size)
    proof = inclusion_proof(leaf_index, size, StoredTree(different).read)
    leaf, top = leaf_hash(different[leaf_index]), defined_root(different)

    assert verify_inclusion(leaf, other, size, proof, top) == (other == leaf_index)


@pytest.mark.parametrize("claimed", [4, 16])
def test_a_proof_of_the_wrong_length_is_refused(claimed: int) -> None:
    """The hashes would come out right: it is the claimed size that is wrong."""
    read = StoredTree(LEAVES).read
    leaf, top = leaf_hash(LEAVES[0]), ROOTS[8]

    assert not verify_inclusion(leaf, 0, claimed, inclusion_proof(0, 8, read), top)
    assert not verify_consistency(1, claimed, consistency_proof(1, 8, read), ROOTS[1], top)
    assert not verify_consistency(3, claimed, consistency_proof(3, 8, read), ROOTS[3], top)


def test_the_right_edge_of_a_tree_is_not_taken_for_a_smaller_tree() -> None:
    """Here too the hashes come out right, with one more on the left than there is room for."""
    read = StoredTree(LEAVES).read

    inclusion, growth = inclusion_proof(7, 8, read), consistency_proof(7, 8, read)

    assert not verify_inclusion(leaf_hash(LEAVES[7]), 3, 4, inclusion, ROOTS[8])
    assert not verify_consistency(3, 4, growth, ROOTS[7], ROOTS[8])


def test_a_value_of_another_length_is_in_no_tree() -> None:
    assert not verify_inclusion(b"x", 0, 1, [], b"x")
    assert not verify_consistency(1, 1, [], b"x", b"x")


def test_every_tree_grew_from_the_empty_one_and_from_itself() -> None:
    tree = StoredTree(LEAVES)

    assert consistency_proof(0, 8, tree.read) == consistency_proof(8, 8, tree.read) == []
    assert verify_consistency(0, 8, [], EMPTY_ROOT, ROOTS[8])
    assert verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)
    assert not verify_consistency(0, 0, [], ROOTS[8], ROOTS[8])
    assert not verify_consistency(0, 8, [], ROOTS[1], ROOTS[8])
    assert not verify_consistency(8, 8, [], ROOTS[7], ROOTS[8])
    assert not verify_consistency(8, 8, [ROOTS[8]], ROOTS[8], ROOTS[8])
    assert not verify_consistency(4, 8, [], ROOTS[4], ROOTS[8])


@pytest.mark.parametrize(("leaf_index", "size"), [(0, 0), (8, 8), (-1, 8)])
def test_there_is_no_proof_of_what_is_not_in_the_tree(leaf_index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_proof(leaf_index, size, StoredTree(LEAVES).read)


@pytest.mark.parametrize(("old_size", "new_size"), [(8, 7), (-1, 7)])
def test_a_shrunken_tree_has_no_consistency_proof(old_size: int, new_size: int) -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        consistency_proof(old_size, new_size, StoredTree(LEAVES).read)


def test_a_leaf_reads_one_node_on_average() -> None:
    tree = StoredTree([b""] * 1024)

    assert sum(len(nodes) for nodes in tree.asked) == 1023
    assert len(tree.asked) == 512, "every second leaf asks for nothing"


def test_a_proof_takes_one_read_of_the_tree() -> None:
    size = 5000
    tree = StoredTree([b"%d" % number for number in range(size)])
    at = random.Random(1).randrange(size)

    for ask in (
        lambda: root(size, tree.read),
        lambda: inclusion_proof(at, size, tree.read),
        lambda: consistency_proof(at, size, tree.read),
    ):
        tree.asked.clear()
        ask()
        (nodes,) = tree.asked
        assert len(nodes) <= 2 * size.bit_length()

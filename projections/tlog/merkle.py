"""The Merkle tree over the entries of the audit log (RFC 9162, section 2.1, with SHA-256).

A node is named by level and index: node ``(level, index)`` is the root of the complete subtree over
the leaves ``index << level`` to ``((index + 1) << level) - 1``. Its hash is known, and final, once
the last of these leaves exists, so it is stored with that leaf. Stored with leaf i are its
``hashes``: the leaf hash, followed by the hashes of all nodes that the leaf completes, lowest
first. There are as many such nodes as i has trailing one bits; one on average.

Roots and proofs are computed from such nodes. The functions here determine the nodes that are
needed, fetch all of them in one call of `Read`, and combine them.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_LENGTH = 32
EMPTY_ROOT = sha256().digest()

Node = tuple[int, int]
"""A level, where leaves have level 0, and an index within that level."""

Read = Callable[[Sequence[Node]], Sequence[bytes]]
"""Returns the hashes of complete nodes, in the order of its argument."""


def leaf_hash(entry: bytes) -> bytes:
    """Return ``SHA-256(0x00 || entry)``."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return ``SHA-256(0x01 || left || right)``."""
    return sha256(b"\x01" + left + right).digest()


def leaf_that_completes(node: Node) -> int:
    """Return the index of the leaf in whose ``hashes`` the node is stored."""
    level, index = node
    return (index + 1 << level) - 1


def hash_at(level: int, hashes: bytes) -> bytes:
    """Return the hash of one node, given the ``hashes`` of the leaf that completes it."""
    return hashes[HASH_LENGTH * level : HASH_LENGTH * (level + 1)]


def hashes_of_leaf(leaf_index: int, entry: bytes, read: Read) -> bytes:
    """Return the ``hashes`` to store with a new leaf.

    Args:
        leaf_index: number of leaves before it.
        read: called with the left siblings of the nodes that the leaf completes: none for every
            second leaf, one on average.
    """
    siblings = _siblings(leaf_index)
    return _completed(leaf_hash(entry), read(siblings) if siblings else [])


class CompactRange:
    """Append many leaves, with one hash for each level in memory (a compact range)."""

    def __init__(self, size: int, read: Read) -> None:
        """Begin with the tree of the first ``size`` leaves."""
        self.size = size
        subtrees = _subtrees(0, size)
        # Roots of the complete subtrees from left to right, so the largest comes first.
        self._roots = list(read(subtrees)) if subtrees else []

    def append(self, entry: bytes) -> bytes:
        """Add a leaf and return the ``hashes`` to store with it."""
        completed = _trailing_ones(self.size)
        keep = len(self._roots) - completed
        hashes = _completed(leaf_hash(entry), reversed(self._roots[keep:]))
        self._roots[keep:] = [hash_at(completed, hashes)]
        self.size += 1
        return hashes

    def root(self) -> bytes:
        """Return the root of the current tree."""
        return _joined(self._roots)


def root(size: int, read: Read) -> bytes:
    """Return the root of the tree over the first ``size`` leaves."""
    return _hashes_of([(0, size)], read)[0]


def inclusion_proof(leaf_index: int, size: int, read: Read) -> list[bytes]:
    """Return the proof that a leaf is in the tree of ``size`` leaves (section 2.1.3.1).

    Raises:
        ValueError: the tree does not have this leaf.
    """
    if not 0 <= leaf_index < size:
        message = f"a tree of {size} leaves has no leaf {leaf_index}"
        raise ValueError(message)
    others = []
    start, end = 0, size
    while end - start > 1:
        middle = _split(start, end)
        if leaf_index < middle:
            others.append((middle, end))
            end = middle
        else:
            others.append((start, middle))
            start = middle
    return _hashes_of(others[::-1], read)


def consistency_proof(old_size: int, new_size: int, read: Read) -> list[bytes]:
    """Return the proof that a tree is a prefix of a larger one (section 2.1.4.1).

    It is empty if the sizes are equal or the old tree is empty: there is nothing to prove.

    Raises:
        ValueError: the old size is negative or larger than the new size.
    """
    if not 0 <= old_size <= new_size:
        message = f"a tree cannot grow from {old_size} leaves to {new_size}"
        raise ValueError(message)
    if old_size in (0, new_size):
        return []
    parts = []
    start, end = 0, new_size
    while end != old_size:
        middle = _split(start, end)
        if old_size <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((start, middle))
            start = middle
    if start:
        # This rest is not a tree that the verifier knows; if it starts at 0, it is the old tree.
        parts.append((start, end))
    return _hashes_of(parts[::-1], read)


def verify_inclusion(
    leaf: bytes, leaf_index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Return whether a proof shows that a leaf hash is in a tree (section 2.1.3.2).

    Args:
        leaf: the leaf hash, not the entry.
        leaf_index: the claimed index of the leaf.
        size, root: size and root of the tree, from a checkpoint.
    """
    if not 0 <= leaf_index < size or not _are_hashes([leaf, *proof, root]):
        return False
    at, last, computed = leaf_index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            computed = node_hash(sibling, computed)
            at, last = _above_left_edges(at, last)
        else:
            computed = node_hash(computed, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and computed == root


class Step(NamedTuple):
    """A step from a leaf towards the root: two siblings and their parent node.

    Args:
        sibling_is_left: whether the sibling from the proof is the left one.
    """

    sibling_is_left: bool
    sibling: bytes
    node: bytes


def steps_to_root(leaf: bytes, leaf_index: int, size: int, proof: Sequence[bytes]) -> list[Step]:
    """Return the intermediate results of `verify_inclusion`, for display.

    Args:
        leaf: the leaf hash, not the entry.
        proof: valid proof of this leaf in the tree of this size, with one hash for each step.
    """
    at, last, node = leaf_index, size - 1, leaf
    steps = []
    for sibling in proof:
        is_left = bool(at & 1) or at == last
        node = node_hash(sibling, node) if is_left else node_hash(node, sibling)
        if is_left:
            at, last = _above_left_edges(at, last)
        at, last = at >> 1, last >> 1
        steps.append(Step(is_left, sibling, node))
    return steps


def verify_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> bool:
    """Return whether a proof shows that one tree is a prefix of another (section 2.1.4.2).

    The section leaves out two cases that need no proof: equal sizes have equal roots, and the empty
    tree is a prefix of every tree.
    """
    if not 0 <= old_size <= new_size or not _are_hashes([*proof, old_root, new_root]):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root and (new_size > 0 or new_root == EMPTY_ROOT)
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if not proof:
        return False
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    skipped = _trailing_ones(old_size - 1)
    at, last = old_size - 1 >> skipped, new_size - 1 >> skipped
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            at, last = _above_left_edges(at, last)
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _above_left_edges(at: int, last: int) -> tuple[int, int]:
    """Climb while the node is on the right edge of the tree and has no sibling to its right."""
    while at and not at & 1:
        at, last = at >> 1, last >> 1
    return at, last


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_LENGTH for value in values)


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1


def _siblings(leaf_index: int) -> list[Node]:
    """Return the left siblings of the nodes that a leaf completes, lowest first."""
    return [(level, (leaf_index >> level) - 1) for level in range(_trailing_ones(leaf_index))]


def _completed(leaf: bytes, siblings: Iterable[bytes]) -> bytes:
    hashes = [leaf]
    for sibling in siblings:
        hashes.append(node_hash(sibling, hashes[-1]))
    return b"".join(hashes)


def _split(start: int, end: int) -> int:
    """Return where a tree is split: the left part is the largest power of two below its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> list[Node]:
    """Return the complete subtrees of the tree over these leaves, from left to right."""
    subtrees = []
    while start < end:
        level = (end - start).bit_length() - 1
        subtrees.append((level, start >> level))
        start += 1 << level
    return subtrees


def _joined(subtrees: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, given from left to right."""
    if not subtrees:
        return EMPTY_ROOT
    joined = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        joined = node_hash(left, joined)
    return joined


def _hashes_of(trees: Sequence[tuple[int, int]], read: Read) -> list[bytes]:
    """Return the root hashes of trees over ranges of leaves, with one call of ``read`` for all."""
    subtrees = [_subtrees(start, end) for start, end in trees]
    nodes = [node for each in subtrees for node in each]
    known = iter(read(nodes) if nodes else [])
    return [_joined([next(known) for _ in each]) for each in subtrees]

"""The Merkle tree over the entries of the audit trail (RFC 9162, section 2.1, with SHA-256).

A node is named by its level and its index: node ``(level, index)`` is the root of the complete
subtree over the leaves from ``index << level`` to ``((index + 1) << level) - 1``. It is known, and
never changes again, as soon as the last of these leaves is there. So it is stored with that leaf:
with leaf i are stored its ``hashes``, the leaf hash followed by the hashes of all the nodes that
it completes, the lowest first. There are as many of them as i has trailing one bits; one on
average.

Whatever else the tree is asked for, a root or a proof, is made of such nodes. The functions here
work out which, get them all in one call of `Read`, and hash them together.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

HASH_LENGTH = 32
EMPTY_ROOT = sha256().digest()

Node = tuple[int, int]
"""A level, counted from the leaves at 0, and an index within that level."""

Read = Callable[[Sequence[Node]], Sequence[bytes]]
"""Returns the hashes of the nodes it is asked for, in their order; all of them are complete."""


def leaf_hash(entry: bytes) -> bytes:
    """Return ``SHA-256(0x00 || entry)``."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return ``SHA-256(0x01 || left || right)``."""
    return sha256(b"\x01" + left + right).digest()


def leaf_that_completes(node: Node) -> int:
    """Return the index of the leaf in whose ``hashes`` a node is stored."""
    level, index = node
    return (index + 1 << level) - 1


def hash_at(level: int, hashes: bytes) -> bytes:
    """Return the hash of one node from the ``hashes`` of the leaf that completes it."""
    return hashes[HASH_LENGTH * level : HASH_LENGTH * (level + 1)]


def hashes_of_leaf(leaf_index: int, entry: bytes, read: Read) -> bytes:
    """Return the ``hashes`` to store with a new leaf.

    Args:
        leaf_index: how many leaves there are before it.
        read: is asked for the left siblings of the nodes that the leaf completes: for none with
            every second leaf, for one on average.
    """
    siblings = _siblings(leaf_index)
    return _completed(leaf_hash(entry), read(siblings) if siblings else [])


class Growth:
    """Appends many leaves, keeping in memory what the next ones need: a hash for each level."""

    def __init__(self, size: int, read: Read) -> None:
        """Begin with the tree as it is at ``size`` leaves."""
        self.size = size
        subtrees = _subtrees(0, size)
        # The roots of complete subtrees, from left to right: the largest comes first.
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
        """Return the root of the tree as it is now."""
        return _joined(self._roots)


def root(size: int, read: Read) -> bytes:
    """Return the root of the tree over the first ``size`` leaves."""
    return _hashes_of([(0, size)], read)[0]


def inclusion_proof(leaf_index: int, size: int, read: Read) -> list[bytes]:
    """Return the proof that a leaf is in the tree of ``size`` leaves (section 2.1.3.1).

    Raises:
        ValueError: the tree of that size has no such leaf.
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
    """Return the proof that a tree only grew (section 2.1.4.1).

    It is empty where there is nothing to prove: between equal sizes, and from an empty tree.

    Raises:
        ValueError: the old size is negative or larger than the new one.
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
        # What is left is no tree that whoever checks the proof knows; from 0 on it is the old one.
        parts.append((start, end))
    return _hashes_of(parts[::-1], read)


def verify_inclusion(
    leaf: bytes, leaf_index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Tell whether a proof shows that a leaf hash is in a tree (section 2.1.3.2).

    Args:
        leaf: the leaf hash, not the entry.
        leaf_index: where in the tree the leaf is said to be.
        size, root: of the tree, as a checkpoint says them.
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
    """A step from a leaf towards the root: two siblings and the node over them.

    Args:
        sibling_is_left: whether the one that the proof gives is the left one.
    """

    sibling_is_left: bool
    sibling: bytes
    node: bytes


def steps_to_root(leaf: bytes, leaf_index: int, size: int, proof: Sequence[bytes]) -> list[Step]:
    """Return what `verify_inclusion` computes on its way, for people who want to follow it.

    Args:
        leaf: the leaf hash, not the entry.
        proof: of this leaf in the tree of this size; it has a hash for each step.
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
    """Tell whether a proof shows that one tree grew into another (section 2.1.4.2).

    The section leaves two cases out, which need no proof: equal sizes have equal roots, and an
    empty tree grows into any other.
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
    """Climb for as long as a node at the right edge of the tree has no sibling to its right."""
    while at and not at & 1:
        at, last = at >> 1, last >> 1
    return at, last


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_LENGTH for value in values)


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1


def _siblings(leaf_index: int) -> list[Node]:
    """Name the left siblings of the nodes that a leaf completes, the lowest first."""
    return [(level, (leaf_index >> level) - 1) for level in range(_trailing_ones(leaf_index))]


def _completed(leaf: bytes, siblings: Iterable[bytes]) -> bytes:
    hashes = [leaf]
    for sibling in siblings:
        hashes.append(node_hash(sibling, hashes[-1]))
    return b"".join(hashes)


def _split(start: int, end: int) -> int:
    """Return where a tree is divided: its left part is the largest complete one below its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> list[Node]:
    """Name the complete subtrees, from left to right, that a tree over these leaves consists of."""
    subtrees = []
    while start < end:
        level = (end - start).bit_length() - 1
        subtrees.append((level, start >> level))
        start += 1 << level
    return subtrees


def _joined(subtrees: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, which are given from left to right."""
    if not subtrees:
        return EMPTY_ROOT
    joined = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        joined = node_hash(left, joined)
    return joined


def _hashes_of(trees: Sequence[tuple[int, int]], read: Read) -> list[bytes]:
    """Return the hashes of trees over ranges of leaves, with one call of ``read`` for them all."""
    subtrees = [_subtrees(start, end) for start, end in trees]
    nodes = [node for each in subtrees for node in each]
    known = iter(read(nodes) if nodes else [])
    return [_joined([next(known) for _ in each]) for each in subtrees]

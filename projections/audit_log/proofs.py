"""Inclusion and consistency proofs from the stored tree."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from domain.errors import EntryNotFound, HistoryInDoubt, Invalid
from domain.key_ids import to_uuid
from projections.audit_log.checkpoint_table import latest_note
from projections.store.schema import events
from projections.store.unreadable_rows import readable
from projections.tlog import merkle
from projections.tlog.checkpoint import Checkpoint
from projections.tlog.merkle import Node, Read
from projections.views.entries import reader, size_of, table


class InclusionProof(NamedTuple):
    """Proof that a leaf is in the tree of a size (RFC 9162, section 2.1.3)."""

    leaf_index: int
    leaf_hash: bytes
    size: int
    root: bytes
    hashes: list[bytes]


class ConsistencyProof(NamedTuple):
    """Proof that the tree of one size is a prefix of a larger one (RFC 9162, section 2.1.4)."""

    old_size: int
    old_root: bytes
    size: int
    root: bytes
    hashes: list[bytes]


def prove_inclusion(connection: Connection, leaf_index: int, size: int | None) -> InclusionProof:
    """Prove that an entry is in the tree.

    Args:
        size: size of the tree; ``None`` for the latest checkpoint's, or for the current one if no
            checkpoint covers the entry.

    Raises:
        Invalid: the tree never had this size, or has no such entry at this size.
        HistoryInDoubt: the tree is smaller than a signed checkpoint.
        ProjectionInconsistent: the tree is damaged.
    """
    size = _size(connection, size, field="size", needed=leaf_index + 1)
    if leaf_index >= size:
        raise Invalid("leaf_index", f"the tree has the entries 0 to {size - 1}: use one of them")
    hashes, (leaf_hash, root) = _with_one_reading(
        reader(connection),
        lambda read: merkle.inclusion_proof(leaf_index, size, read),
        lambda read: [*read([(0, leaf_index)]), merkle.root(size, read)],
    )
    return InclusionProof(leaf_index, leaf_hash, size, root, hashes)


def prove_consistency(connection: Connection, old_size: int, size: int | None) -> ConsistencyProof:
    """Prove that the tree of one size contains the tree of a smaller size unchanged.

    Args:
        size: size of the larger tree; ``None`` as for `prove_inclusion`.

    Raises:
        Invalid: the tree never had one of the sizes, or the old one is larger.
        HistoryInDoubt: the tree is smaller than a signed checkpoint.
        ProjectionInconsistent: the tree is damaged.
    """
    size = _size(connection, size, field="to", needed=old_size)
    if old_size > size:
        raise Invalid(
            "from", f"the size is too large: use at most {size}, the size of the larger tree"
        )
    hashes, (old_root, root) = _with_one_reading(
        reader(connection),
        lambda read: merkle.consistency_proof(old_size, size, read),
        lambda read: [merkle.root(old_size, read), merkle.root(size, read)],
    )
    return ConsistencyProof(old_size, old_root, size, root, hashes)


def find_leaf(
    connection: Connection,
    *,
    leaf_index: int | None = None,
    position: int | None = None,
    key_id: str | None = None,
    version: int | None = None,
    workspace: str | None = None,
) -> int:
    """Return the leaf index of an entry.

    Args:
        leaf_index: the index itself, for an entry of any workspace.
        position: position of the entry's event.
        key_id, version: the key that the event changed, and the key's version after it.
        workspace: the only workspace whose events the caller may see; ``None`` for all.

    Raises:
        Invalid: the entry is not named in exactly one of these ways.
        EntryNotFound: there is no such event.
        KeyNotFound: the id does not have the form of a key id.
    """
    match leaf_index, position, key_id, version:
        case int(named), None, None, None:
            return named
        case None, int(named), None, None:
            return _leaf(connection, table.c.position == named, workspace)
        case None, None, str(key), int(named):
            of_event = select(events.c.id).where(
                events.c.originator_id == to_uuid(key).bytes,
                events.c.originator_version == named,
            )
            named_so = table.c.position == of_event.scalar_subquery()
            return _leaf(connection, named_so, workspace)
    raise Invalid("leaf_index", "name one entry: use leaf_index, position, or key_id and version")


def _leaf(connection: Connection, named: ColumnElement[bool], workspace: str | None) -> int:
    query = select(table.c.leaf_index).where(named)
    if workspace is not None:
        query = query.where(table.c.workspace == workspace)
    leaf_index: int | None = connection.scalar(query)
    if leaf_index is None:
        raise EntryNotFound("there is no such event")
    return leaf_index


def _with_one_reading(read: Read, *questions: Callable[[Read], list[bytes]]) -> list[list[bytes]]:
    """Compute several results with one query: which nodes they need does not depend on hashes."""
    wanted: list[Node] = []

    def note(nodes: Sequence[Node]) -> list[bytes]:
        wanted.extend(nodes)
        return [bytes(merkle.HASH_LENGTH)] * len(nodes)

    for question in questions:
        question(note)
    known = dict(zip(wanted, read(wanted), strict=True)) if wanted else {}
    return [question(lambda nodes: [known[node] for node in nodes]) for question in questions]


def _size(connection: Connection, size: int | None, *, field: str, needed: int) -> int:
    """Return the requested size of the tree, or the default if none was requested.

    Raises:
        ProjectionInconsistent: the latest checkpoint cannot be read.
    """
    there = size_of(connection)
    if size is not None:
        if size > there:
            raise Invalid(
                field, f"the size is too large: use at most {there}, the current size of the tree"
            )
        return size
    note = latest_note(connection)
    if note is None:
        return there
    with readable("checkpoints"):
        signed = Checkpoint.from_text(note.rpartition("\n\n")[0] + "\n").size
    if signed > there:
        message = f"the tree has {there} entries, but a checkpoint was signed for {signed}"
        raise HistoryInDoubt(f"{message}: run keyledger audit verify")
    return signed if needed <= signed else there

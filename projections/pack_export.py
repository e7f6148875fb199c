"""Writing the audit pack of a ledger: its history up to the last checkpoint that was signed."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import BinaryIO, TypeVar

from sqlalchemy import Connection, Select, select

from domain.errors import HistoryInDoubt
from projections import entries
from projections.audit_pack import write_pack
from projections.checkpoint import Checkpoint, open_checkpoint
from projections.schema import checkpoints
from projections.signed_note import SigningKey

Value = TypeVar("Value")

_AT_ONCE = 1_000
_VERIFY = "run: keyledger audit verify"


def export_pack(
    connection: Connection,
    target: BinaryIO,
    *,
    key: SigningKey,
    reports: Mapping[str, Iterable[bytes]],
) -> Checkpoint:
    """Write a pack of all that was signed, as one transaction sees it.

    Args:
        target: an empty file that is open for writing.
        key: the ledger's.
        reports: the contents of further files by their names.

    Returns:
        The checkpoint up to which the history is in the pack.

    Raises:
        HistoryInDoubt: nothing was signed, or something else than what there is.
    """
    note = connection.scalar(
        select(checkpoints.c.note)
        .where(checkpoints.c.origin == key.name)
        .order_by(checkpoints.c.size.desc())
        .limit(1)
    )
    if note is None:
        raise HistoryInDoubt("the log has no signed checkpoint yet, so that nothing can be proved")
    try:
        last = open_checkpoint(note, [key.verifier_key])
        return write_pack(
            target,
            entries=_entries(connection, last.size),
            checkpoints=_notes(connection, last),
            key=key,
            reports=reports,
        )
    except ValueError as error:
        raise HistoryInDoubt(f"no pack can be made of this log: {error}; {_VERIFY}") from error


def _entries(connection: Connection, size: int) -> Iterator[bytes]:
    table = entries.table
    return _in_pieces(
        connection,
        select(table.c.entry).where(table.c.leaf_index < size).order_by(table.c.leaf_index),
    )


def _notes(connection: Connection, last: Checkpoint) -> Iterator[str]:
    return _in_pieces(
        connection,
        select(checkpoints.c.note)
        .where(checkpoints.c.origin == last.origin)
        .order_by(checkpoints.c.size),
    )


def _in_pieces(connection: Connection, query: Select[tuple[Value]]) -> Iterator[Value]:
    # A server is asked for a cursor; else the driver would take the whole answer at once.
    found = connection.execution_options(yield_per=_AT_ONCE).scalars(query)
    return chain.from_iterable(found.partitions())

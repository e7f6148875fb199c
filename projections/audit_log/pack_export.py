"""Export the audit pack of a ledger: its history up to the last signed checkpoint."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import BinaryIO, TypeVar

from sqlalchemy import Connection, Select, select

from domain.errors import HistoryInDoubt
from projections.store.schema import checkpoints
from projections.tlog.audit_pack import write_pack
from projections.tlog.checkpoint import Checkpoint, open_checkpoint
from projections.tlog.notes import SigningKey
from projections.views import entries

Value = TypeVar("Value")

_AT_ONCE = 1_000
_VERIFY = "run: keyledger audit verify"


def export_pack(
    connection: Connection,
    target: BinaryIO,
    *,
    signed: Checkpoint,
    key: SigningKey,
    reports: Mapping[str, Iterable[bytes]],
) -> Checkpoint:
    """Write a pack of everything that was signed, from one transaction.

    Args:
        target: an empty file, open for writing.
        signed: the last checkpoint outside the database, up to which the pack must reach.
        key: the ledger's signing key.
        reports: contents of additional files by name.

    Returns:
        The last checkpoint in the pack.

    Raises:
        HistoryInDoubt: nothing was signed, or the entries are not those that were signed.
    """
    if not signed.size:
        raise HistoryInDoubt("the log has no signed checkpoint yet: try again in a second")
    try:
        written = write_pack(
            target,
            entries=_entries(connection, signed.size),
            checkpoints=_notes(connection, signed.size, key),
            key=key,
            reports=reports,
        )
    except ValueError as error:
        raise HistoryInDoubt(f"this log cannot be exported: {error}; {_VERIFY}") from error
    if written != signed:
        raise HistoryInDoubt(
            f"this log cannot be exported: its {signed.size} entries do not match the signed"
            f" checkpoint; {_VERIFY}"
        )
    return written


def _entries(connection: Connection, size: int) -> Iterator[bytes]:
    table = entries.table
    return _in_pieces(
        connection,
        select(table.c.entry).where(table.c.leaf_index < size).order_by(table.c.leaf_index),
    )


def _notes(connection: Connection, size: int, key: SigningKey) -> Iterator[str]:
    """Yield the notes in the database up to a size, smallest first.

    Raises:
        ValueError: a note does not have the size of its row, or was not signed by the key.
    """
    query = (
        select(checkpoints.c.size, checkpoints.c.note)
        .where(checkpoints.c.origin == key.name, checkpoints.c.size <= size)
        .order_by(checkpoints.c.size)
    )
    found = connection.execution_options(yield_per=_AT_ONCE).execute(query)
    for row in found:
        checkpoint = open_checkpoint(row.note, [key.verifier_key])
        if checkpoint.size != row.size:
            message = (
                f"the database's checkpoint at {row.size} entries was replaced by one of"
                f" {checkpoint.size} entries"
            )
            raise ValueError(message)
        yield row.note


def _in_pieces(connection: Connection, query: Select[tuple[Value]]) -> Iterator[Value]:
    # This makes the driver use a server-side cursor; otherwise it would load the whole result.
    found = connection.execution_options(yield_per=_AT_ONCE).scalars(query)
    return chain.from_iterable(found.partitions())

"""Preconditions of copying a ledger, and the verification of the copy."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, func, select

from domain.errors import LedgerError
from projections.rebuild.rebuild import Progress, is_current
from projections.store.database import Database
from projections.store.events import last_position, read_rows
from projections.store.schema import HEAD, current_revision, events, last_uses
from projections.tlog.merkle import root
from projections.views import entries
from projections.views.registry import VIEWS

_AT_ONCE = 10_000
_OTHERWISE = "it was used after it was copied, or it is the one to copy from"


class CopyRefused(LedgerError):
    """The source cannot be copied as it is, or the target has other contents."""

    code = "COPY_REFUSED"


class CopyDiffers(LedgerError):
    """The target differs from the source and must not be used."""

    code = "COPY_DIFFERS"


class Extent(NamedTuple):
    """The extent of a ledger at one moment.

    Args:
        events: number of events.
        position: position of the last event.
        entries: size of the tree over the entries.
        root: root of that tree.
        rows: number of rows of each projection.
    """

    events: int
    position: int
    entries: int
    root: bytes
    rows: dict[str, int]


def extent_of(connection: Connection) -> Extent:
    """Return the extent of a ledger.

    Raises:
        ProjectionInconsistent: a node of its tree is missing or damaged.
    """
    size = entries.size_of(connection)
    return Extent(
        events=_count(connection, events),
        position=last_position(connection),
        entries=size,
        root=root(size, entries.reader(connection)),
        rows={view.name: _count(connection, view.table) for view in VIEWS},
    )


def check_source(source: Database) -> None:
    """Check that the source is a ledger of this version of the program.

    Raises:
        CopyRefused: it is not; a ledger of another version is not migrated here.
    """
    with source.read() as connection:
        revision = current_revision(connection)
    if revision is None:
        message = f"there is no ledger in {source.name}"
        raise CopyRefused(message)
    if revision != HEAD or not all(is_current(source, view) for view in VIEWS):
        message = (
            f"{source.name} was last used by another version of the program (its revision is"
            f" {revision}, this program has {HEAD}): if by an older version, upgrade it first with"
            " keyledger projections status; if by a newer version, copy it with that version"
        )
        raise CopyRefused(message)


def check_target(source: Database, target: Database) -> None:
    """Check that the target is another database, empty or with a ledger of this version.

    Raises:
        CopyRefused: it is not.
    """
    if source.is_same_as(target):
        message = f"{target.name} is the ledger to copy from: name another database"
        raise CopyRefused(message)
    with target.read() as connection:
        revision = current_revision(connection)
    if revision not in {None, HEAD}:
        message = (
            f"{target.name} already has a ledger of another version of the program (its revision"
            f" is {revision}, this program has {HEAD}): use an empty database"
        )
        raise CopyRefused(message)


def check_prefix(source: Database, target: Database, progress: Progress) -> int:
    """Return the last position of the target, whose history must be a prefix of the source's.

    Raises:
        CopyRefused: it is another history, or the target has been in use.
    """
    with target.read() as connection:
        there, used_there = last_position(connection), _last_use(connection)
    with source.read() as connection:
        here, used_here = last_position(connection), _last_use(connection)
    differing = _first_difference(source, target, progress, after=0, until=min(there, here))
    if differing is not None:
        message = (
            f"{target.name} has another ledger: its event at position {differing} differs from"
            f" that of {source.name}; use an empty database"
        )
        raise CopyRefused(message)
    if there > here:
        message = (
            f"{target.name} is ahead: it ends at position {there}, and {source.name} at {here};"
            f" {_OTHERWISE}"
        )
        raise CopyRefused(message)
    if used_there > used_here:
        message = (
            f"{target.name} is ahead: a key was used there at {used_there}, later than any key of"
            f" {source.name}; {_OTHERWISE}"
        )
        raise CopyRefused(message)
    return there


def compare_copy(
    source: Database, target: Database, extent: Extent, progress: Progress, *, compared: int
) -> None:
    """Compare the target with the source's extent: each event byte for byte, and the tree.

    The target's views are built from these events; their completeness follows from the tree's root
    and the numbers of their rows.

    Args:
        extent: extent of the source when it was last read.
        compared: position up to which the events were compared already.

    Raises:
        CopyDiffers: something differs.
    """
    differing = _first_difference(source, target, progress, after=compared, until=extent.position)
    if differing is not None:
        message = (
            f"the event at position {differing} differs in {target.name}: do not use the copy;"
            " empty it, and copy again"
        )
        raise CopyDiffers(message)
    with target.read() as connection:
        found = extent_of(connection)
    for what, ours, theirs in zip(Extent._fields, extent, found, strict=True):
        if ours != theirs:
            said = [each.hex() if isinstance(each, bytes) else each for each in (ours, theirs)]
            message = (
                f"the {what} of {source.name} and {target.name} differ: {said[0]} and {said[1]};"
                " do not use the copy, and check the source with keyledger audit verify"
            )
            raise CopyDiffers(message)


def _first_difference(
    source: Database, target: Database, progress: Progress, *, after: int, until: int
) -> int | None:
    """Return the first position in a range at which the events differ, or ``None``."""
    position = after
    while position < until:
        progress("comparing", position, until)
        ours, theirs = (_page(each, position, until) for each in (source, target))
        for one, other in zip_longest(ours, theirs) if ours != theirs else ():
            if one != other:
                differing: int = min(row.id for row in (one, other) if row is not None)
                return differing
        position = ours[-1].id
    return None


def _page(database: Database, after: int, until: int) -> Sequence[Row[Any]]:
    with database.read() as connection:
        rows = read_rows(connection, after=after, limit=_AT_ONCE)
    return [row for row in rows if row.id <= until]


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _last_use(connection: Connection) -> str:
    return connection.scalar(select(func.max(last_uses.c.used_at))) or ""

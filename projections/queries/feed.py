"""The feed: the entries of the audit log in order, filtered, as pages or as a stream.

A place in the feed is a leaf index, because leaf indexes have no gaps. Clients name places by
positions, which they know from every event.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Dialect, Row, func, select

from domain.errors import Invalid, KeyNotFound
from domain.key_ids import to_uuid
from domain.serialization import EVENT_CLASSES
from domain.times import to_text
from projections.store.database import POSTGRESQL, Database
from projections.store.schema import events
from projections.store.unreadable_rows import check_types, readable
from projections.views.entries import size_of, table

_BATCH = 500
_LARGEST = 2**63 - 1
"""The largest number that a column can hold; a forged entry may have it as its leaf index."""


@dataclass(frozen=True, slots=True)
class FeedFilters:
    """Which entries to read; a filter that is ``None`` matches all.

    Args:
        workspace: workspace of the event's key.
        key_id: id of the key.
        actor: id of the actor.
        type: type of the event, such as ``ApiKey.Revoked``.
        since, until: the event happened at or after the first time, and before the second.
    """

    workspace: str | None = None
    key_id: str | None = None
    actor: str | None = None
    type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """Reject filters that can never match.

        Raises:
            Invalid: there is no such type, or the id does not have the form of a key id.
        """
        if self.type is not None and self.type not in EVENT_CLASSES:
            raise Invalid("type", f"no such type of event: use one of {', '.join(EVENT_CLASSES)}")
        if self.key_id is not None:
            try:
                to_uuid(self.key_id)
            except KeyNotFound as error:
                raise Invalid("key_id", str(error)) from None


class FeedEntry(NamedTuple):
    """An entry of the feed; ``entry`` is its canonical line, as in the tree."""

    leaf_index: int
    position: int
    workspace: str
    entry: bytes


class Place(NamedTuple):
    """The place of an entry in the feed; leaf index -1 is the place before the first entry."""

    leaf_index: int
    position: int


BEGINNING = Place(-1, 0)


def newest_place(connection: Connection) -> Place:
    """Return the place of the newest entry."""
    found = connection.execute(
        select(table.c.leaf_index, table.c.position).order_by(table.c.leaf_index.desc()).limit(1)
    ).first()
    return BEGINNING if found is None else Place(*found)


def place_of(connection: Connection, position: int, *, field: str) -> Place:
    """Return the place of the last entry up to a position.

    Args:
        field: the client's name for the position, for the error.

    Raises:
        Invalid: the position is after the newest entry.
    """
    newest = newest_place(connection)
    if position > newest.position:
        raise Invalid(
            field, f"the position is after the newest event: use at most {newest.position}"
        )
    found = connection.execute(
        select(table.c.leaf_index, table.c.position)
        .where(table.c.position <= position)
        .order_by(table.c.position.desc())
        .limit(1)
    ).first()
    return BEGINNING if found is None else Place(*found)


def leaf_indexes(connection: Connection, positions: Collection[int]) -> dict[int, int]:
    """Return the leaf indexes of some events' entries, by position."""
    rows = connection.execute(
        select(table.c.position, table.c.leaf_index).where(table.c.position.in_(positions))
    )
    return dict(rows.tuples().all())


def span_of(connection: Connection, filters: FeedFilters, *, after: int) -> range:
    """Return a range of leaf indexes after ``after`` that includes all matching entries."""
    rest = range(after + 1, min(size_of(connection), _LARGEST))
    if filters.since is filters.until is None:
        return rest
    # Times nearly always increase with the leaf index, and this reads only an index of times.
    # Without these bounds each batch would have to sort, or to scan, up to the whole feed.
    first, last = connection.execute(
        select(func.min(table.c.leaf_index), func.max(table.c.leaf_index)).where(
            *_in_time(filters, table.c.occurred_at)
        )
    ).one()
    if first is None:
        return range(0)
    return range(max(rest.start, first), min(rest.stop, last + 1))


def read_feed(
    connection: Connection,
    filters: FeedFilters,
    span: range,
    *,
    limit: int,
    newest_first: bool = False,
) -> list[FeedEntry]:
    """Read the first matching entries, in the order of the tree.

    Args:
        span: range of leaf indexes to search.
        limit: maximum number of entries.
        newest_first: read the last ones instead, in reverse order.

    Raises:
        ProjectionInconsistent: a row has values of types that the program never writes.
    """
    order = table.c.leaf_index.desc() if newest_first else table.c.leaf_index
    rows = connection.execute(
        select(table.c.leaf_index, table.c.position, table.c.workspace, table.c.entry)
        .where(
            table.c.leaf_index >= span.start,
            table.c.leaf_index < span.stop,
            *_conditions(filters, connection.dialect),
        )
        .order_by(order)
        .limit(limit)
    )
    return [_entry(row) for row in rows]


def _entry(row: Row[Any]) -> FeedEntry:
    with readable(table.name):
        check_types(row, int, "leaf_index", "position")
        check_types(row, str, "workspace")
    entry: object = row.entry
    # Pages of the console show the other entries, and that this one is damaged.
    readable_entry = entry if isinstance(entry, bytes) else str(entry).encode()
    return FeedEntry(row.leaf_index, row.position, row.workspace, readable_entry)


def read_all(
    database: Database, filters: FeedFilters, span: range, *, batch: int = _BATCH
) -> Iterator[list[FeedEntry]]:
    """Read all matching entries, in batches.

    Each batch has its own transaction: one that stayed open while a slow client reads would keep
    the write-ahead log from being truncated.
    """
    while span:
        with database.read() as connection:
            found = read_feed(connection, filters, span, limit=batch)
        if found:
            yield found
        if len(found) < batch:
            return
        span = range(found[-1].leaf_index + 1, span.stop)


class NewEntries(NamedTuple):
    """New entries after a place, and the place up to which the feed was read."""

    entries: list[FeedEntry]
    reached: Place


def read_new_entries(
    database: Database, filters: FeedFilters, after: Place, *, limit: int = _BATCH
) -> NewEntries:
    """Read the next matching entries after a place.

    Returns:
        The entries, and the place reached: that of the last entry if there may be more, otherwise
        the newest place.
    """
    with database.read() as connection:
        newest = newest_place(connection)
        span = range(after.leaf_index + 1, min(newest.leaf_index + 1, _LARGEST))
        found = read_feed(connection, filters, span, limit=limit) if span else []
    if len(found) == limit:
        newest = Place(found[-1].leaf_index, found[-1].position)
    return NewEntries(found, newest)


def _conditions(filters: FeedFilters, dialect: Dialect) -> Iterator[ColumnElement[bool]]:
    """Yield the filters as SQL, such that SQLite can use an index only for the first one.

    The first one usually matches the fewest entries. An index for another filter would be slower,
    or would return the entries in another order than the tree's, so that each batch is sorted. On
    PostgreSQL the columns stay plain, because it estimates the number of matches itself.
    """
    known = dialect.name == POSTGRESQL
    narrowed = filters.key_id is not None
    if filters.key_id is not None:
        of_key = select(events.c.id).where(events.c.originator_id == to_uuid(filters.key_id).bytes)
        yield table.c.position.in_(of_key)
    for column, value in (
        (table.c.actor_id, filters.actor),
        (table.c.workspace, filters.workspace),
        (table.c.type, filters.type),
    ):
        if value is not None:
            yield (column.concat("") if narrowed and not known else column) == value
            narrowed = True
    yield from _in_time(filters, table.c.occurred_at.concat(""))


def _in_time(filters: FeedFilters, at: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
    if filters.since is not None:
        yield at >= to_text(filters.since)
    if filters.until is not None:
        yield at < to_text(filters.until)

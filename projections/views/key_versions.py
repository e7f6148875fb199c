"""The versions of keys: each key's state after each of its events, and when it was valid.

A key's versions follow each other without gaps: at any time exactly one of them is valid, or none
before the key was created. A version is valid from the latest time of the key's events up to its
own. So if a clock was set back between two events, the earlier version is never valid, and never
are two valid at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Index,
    MetaData,
    String,
    Table,
    bindparam,
    case,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import Grouping

from domain.api_key import ApiKey
from domain.times import to_text
from projections.store.column_types import big_integer
from projections.store.events import Recorded, first_positions
from projections.store.seals import Seals
from projections.views import key_list
from projections.views.key_fields import TIME
from projections.views.view import (
    Prepared,
    Values,
    View,
    insert_rows,
    prepared,
    rows_missing,
    values_of,
)

_NAME = "key_versions"
_NAMED_BY = ("position", "version")
_COLUMNS = sorted(key_list.table.c, key=lambda column: column.name not in _NAMED_BY)

table = Table(
    _NAME,
    MetaData(),
    *(
        Column(
            column.name,
            column.type,
            primary_key=column.name in _NAMED_BY,
            autoincrement=False,
            nullable=column.nullable,
        )
        for column in _COLUMNS
    ),
    Column("held_from", TIME, nullable=False),
    Column("held_until", TIME),
)


CREATED_BUCKET = 16_384
ENDED_BUCKET = 1_024
"""Size of the buckets of positions: large if only the newest key of a bucket is needed, smaller if
each matching key is read."""

# Indexed expressions are literal in queries too: SQLite does not match a parameter with them.
_ACTIVE = literal_column("'active'", String())
_REVOKED = literal_column("'revoked'", String())


def bucket(keys: FromClause, size: int) -> ColumnElement[int]:
    """Return the bucket of positions, of this size, that a row belongs to.

    An index on bucket and time shows with one lookup whether any row of the bucket has that time or
    an earlier one, even if clocks were set back. So whole buckets can be skipped.
    """
    return keys.c.position.op("/", return_type=big_integer)(literal_column(str(size)))


def is_first(keys: FromClause) -> ColumnElement[bool]:
    """Return whether a version is the first of its key."""
    return keys.c.version == literal_column("1")


def has_ended(keys: FromClause) -> ColumnElement[bool]:
    """Return whether a version is of a revoked key, or of one that expired while it was valid."""
    return or_(keys.c.status != _ACTIVE, keys.c.held_until > keys.c.expires_at)


def is_revoked(keys: FromClause) -> ColumnElement[int]:
    """Return 1 for a version of a revoked key, and 0 otherwise."""
    # Not a boolean: SQLite's is a number, and PostgreSQL's is not.
    return case((keys.c.status == _REVOKED, literal_column("1")), else_=literal_column("0"))


def ended_at(keys: FromClause) -> ColumnElement[str]:
    """Return since when a version that `has_ended` is of a revoked or expired key."""
    return case((keys.c.status == _ACTIVE, keys.c.expires_at), else_=keys.c.held_from)


Index("by_time", table.c.position, table.c.held_from, table.c.version)
Index(
    "by_creation",
    table.c.workspace,
    bucket(table, CREATED_BUCKET),
    table.c.held_from,
    table.c.position,
    sqlite_where=is_first(table),
    postgresql_where=is_first(table),
)
Index(
    "by_end",
    table.c.workspace,
    Grouping(is_revoked(table)),
    bucket(table, ENDED_BUCKET),
    Grouping(ended_at(table)),
    sqlite_where=has_ended(table),
    postgresql_where=has_ended(table),
)


class _Folded(NamedTuple):
    """New versions of keys, and changes of existing keys, by key."""

    made: dict[int, list[Values]]
    changed: dict[UUID, list[Values]]


def _fold(recorded: Iterable[Recorded]) -> _Folded:
    made: dict[int, list[Values]] = {}
    changed: dict[UUID, list[Values]] = {}
    for position, event in recorded:
        values = values_of(_NAME, key_list.HANDLERS, position, event)
        if not values:
            continue
        values["held_from"] = to_text(event.timestamp)
        values["held_until"] = None
        number = event.originator_id.int
        if type(event) is ApiKey.Created:
            made[number] = [values]
        elif number in made:
            made[number].append(_next(made[number][-1], values))
        else:
            changed.setdefault(event.originator_id, []).append(values)
    return _Folded(made, changed)


def _next(version: Values, values: Values) -> Values:
    """Return the version after one that the event of ``values`` ends."""
    version["held_until"] = max(version["held_from"], values["held_from"])
    return version | values | {"held_from": version["held_until"]}


def _write(connection: Connection, table: Table, folded: _Folded, _seals: Seals) -> None:
    made, changed = folded
    rows = list(chain.from_iterable(made.values()))
    if changed:
        ended, begun = _follow(connection, table, changed)
        statement, in_order = _end(table, connection.dialect)
        connection.exec_driver_sql(statement, [in_order(_named(version)) for version in ended])
        rows += begun
    insert_rows(connection, table, rows)


def _follow(
    connection: Connection, table: Table, changed: Mapping[UUID, Sequence[Values]]
) -> tuple[list[Values], list[Values]]:
    """Return the versions that end, and their successors.

    Raises:
        ProjectionInconsistent: a key has no current version.
    """
    positions = first_positions(connection, changed)
    statement, in_order = _find(table, connection.dialect)
    ended: list[Values] = []
    begun: list[Values] = []
    for uuid, each in changed.items():
        last = {"_position": positions.get(uuid), "_version": each[0]["version"] - 1}
        row = connection.exec_driver_sql(statement, in_order(last)).one_or_none()
        if row is None:
            continue
        version = dict(row._mapping)  # noqa: SLF001 - public, in spite of its name
        ended.append(version)
        for values in each:
            version = _next(version, values)
            begun.append(version)
    if len(ended) < len(changed):
        raise rows_missing(_NAME, table, len(changed) - len(ended), len(changed))
    return ended, begun


def _named(version: Values) -> Values:
    return {
        "_position": version["position"],
        "_version": version["version"],
        "held_until": version["held_until"],
    }


@cache
def _find(table: Table, dialect: Dialect) -> Prepared:
    return prepared(select(table).where(*_by_name(table)), dialect)


@cache
def _end(table: Table, dialect: Dialect) -> Prepared:
    ended = update(table).values(held_until=bindparam("held_until")).where(*_by_name(table))
    return prepared(ended, dialect)


def _by_name(table: Table) -> list[ColumnElement[bool]]:
    return [table.c.position == bindparam("_position"), table.c.version == bindparam("_version")]


# The columns and handlers are those of the key list, so the version follows. Increase this number
# with a change in this file alone.
_OWN_CHANGES = -1
VIEW = View(
    version=key_list.VIEW.version + _OWN_CHANGES,
    table=table,
    fold=_fold,
    write=_write,
    updates=("held_until",),
)

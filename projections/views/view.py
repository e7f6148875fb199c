"""Views, and how events change their tables, one event or a million.

A view of keys has one row for each key, named by ``position``: the position of the key's first
event, which never changes and sorts the keys by age. (`projections.views.key_versions` has a row
for each version of a key.) Each type of event gives values of columns that depend only on the
event. So a batch of events folds in memory into one insert or update for each key, and live
projection and replay use the same code.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import itemgetter
from typing import Any, NamedTuple, cast, get_args
from uuid import UUID

from sqlalchemy import (
    ClauseElement,
    Connection,
    Dialect,
    MetaData,
    Table,
    bindparam,
    insert,
    update,
)
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import SQLCompiler

from domain.api_key import ApiKey
from domain.audit_log import LedgerEvent, LogEvent
from domain.errors import PoisonEvent, ProjectionInconsistent
from domain.key_ids import to_key_id
from projections.store.database import POSTGRESQL
from projections.store.events import Recorded, first_positions
from projections.store.postgresql_tables import copy_rows
from projections.store.seals import Seals

_WORTH_COPYING = 100
"""COPY is faster than INSERT from this many rows on."""

Values = dict[str, Any]
Handler = Callable[[Any], Values]
Handlers = Mapping[type[LedgerEvent], Handler]
"""The values that each type of event sets. A view names all types, so that none is forgotten."""


def changes_nothing(_event: LedgerEvent) -> Values:
    """Handle a type of event that does not affect a view."""
    return {}


ABOUT_NO_KEY: Handlers = dict.fromkeys(get_args(LogEvent), changes_nothing)
"""Handlers of the events that are about the log itself, for views of keys."""


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """A projection of the events onto a table.

    Args:
        version: increases with every change of the table or of the values written into it; every
            database then rebuilds the view when the program starts.
        table: has the columns ``key_id`` and ``position``.
        fold: turns events, in the order of each key, into the changes to write, without using the
            database. Raises `PoisonEvent` for an event that it cannot handle.
        write: applies the folded changes to the table or a copy of it, with the seals of its rows.
            Raises `ProjectionInconsistent` if an event changes a key without a row.
        in_order: whether rows depend on the order of all events, and not only on those of their own
            keys, so that a new table must be filled in that order.
    """

    version: int
    table: Table
    fold: Callable[[Iterable[Recorded]], Any]
    write: Callable[[Connection, Table, Any, Seals], None]
    in_order: bool = False
    updates: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the view and of its table."""
        return self.table.name

    @property
    def written(self) -> str:
        """The privileges of the server's role to write to the table, as ``GRANT`` takes them."""
        return f"INSERT, UPDATE ({', '.join(self.updates)})" if self.updates else "INSERT"

    def project(
        self, connection: Connection, table: Table, recorded: Iterable[Recorded], seals: Seals
    ) -> None:
        """Apply events to the view's table or to a copy of it.

        Raises:
            PoisonEvent, ProjectionInconsistent: as for `fold` and `write`.
        """
        self.write(connection, table, self.fold(recorded), seals)


def view_of_keys(
    *,
    version: int,
    table: Table,
    handlers: Handlers,
    updates: tuple[str, ...],
    write: "Callable[[Connection, Table, Folded, Seals], None] | None" = None,
) -> View:
    """Return a view with one row for each key, which the handlers change.

    Args:
        version: as in `View`.
        table: its primary key is ``position``.
        handlers: values that each type of event sets.
        write: as in `View`; by default, rows are inserted and updated as folded.
    """
    fold = partial(_fold, table.name, handlers)
    return View(version, table, fold, write or partial(_write, table.name), updates=updates)


@cache
def copy_of(table: Table, name: str) -> Table:
    """Return the same table under another name."""
    return table.to_metadata(MetaData(), name=name)


def values_of(name: str, handlers: Handlers, position: int, event: LedgerEvent) -> Values:
    """Return the values that an event sets; a key's first event also sets its row's identity.

    Args:
        name: name of the view, for the error.
        position: position of the event.

    Raises:
        PoisonEvent: the handler fails for the event.
    """
    try:
        values = handlers[type(event)](event)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise PoisonEvent(position, f"{name} fails on it: {error!r}") from error
    if type(event) is ApiKey.Created:
        values["position"] = position
        values["key_id"] = to_key_id(event.originator_id)
    return values


def insert_rows(connection: Connection, table: Table, rows: Collection[Values]) -> None:
    """Insert complete rows into a table, in order.

    They are passed to the driver in its own form: converting a million dictionaries would cost as
    much as writing them.
    """
    if rows:
        _, in_order = _insert(table, connection.dialect)
        insert_in_order(connection, table, [in_order(row) for row in rows])


def insert_in_order(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows whose values are in table order."""
    if connection.dialect.name == POSTGRESQL and len(rows) >= _WORTH_COPYING:
        copy_rows(connection, table, rows)
    elif rows:
        statement, _ = _insert(table, connection.dialect)
        connection.exec_driver_sql(statement, list(rows))


def rows_missing(name: str, table: Table, missing: int, keys: int) -> ProjectionInconsistent:
    """Return the error for events that change keys without a row in a view's table."""
    return ProjectionInconsistent(
        f"{missing} of {keys} keys have no row in {table.name}: run keyledger projections rebuild"
        f" {name}"
    )


class Folded(NamedTuple):
    """The changes that events make to the rows of a view.

    Args:
        made: rows to insert, by the number of the key's UUID.
        changed: changes to existing rows, by key.
        before: version of each key in ``changed`` before these changes.
    """

    made: dict[int, Values]
    changed: dict[UUID, Values]
    before: dict[UUID, int]


def _write(name: str, connection: Connection, table: Table, folded: Folded, _seals: Seals) -> None:
    made, changed, _ = folded
    insert_rows(connection, table, made.values())
    if changed:
        positions = first_positions(connection, changed)
        changes = [values | {"_position": positions.get(uuid)} for uuid, values in changed.items()]
        update_rows(name, connection, table, changes)


def update_rows(name: str, connection: Connection, table: Table, changes: Iterable[Values]) -> None:
    """Update rows of a view's table.

    Args:
        name: name of the view, for the error.
        changes: new values of each row, with its position as ``_position``.

    Raises:
        ProjectionInconsistent: a row does not exist.
    """
    by_columns: dict[tuple[str, ...], list[Values]] = defaultdict(list)
    for values in changes:
        by_columns[tuple(sorted(values))].append(values)
    for columns, rows in by_columns.items():
        statement, in_order = _update(table, columns, connection.dialect)
        updated = connection.exec_driver_sql(statement, [in_order(row) for row in rows]).rowcount
        if updated != len(rows):
            raise rows_missing(name, table, len(rows) - updated, len(rows))


def _fold(name: str, handlers: Handlers, recorded: Iterable[Recorded]) -> Folded:
    made: dict[int, Values] = {}
    changed: dict[UUID, Values] = {}
    before: dict[UUID, int] = {}
    for position, event in recorded:
        # Keyed by the UUID's number: hashing a UUID takes longer than everything else here.
        number = event.originator_id.int
        values = values_of(name, handlers, position, event)
        if type(event) is ApiKey.Created:
            made[number] = values
        elif number in made:
            made[number].update(values)
        elif values:
            before.setdefault(event.originator_id, event.originator_version - 1)
            changed.setdefault(event.originator_id, {}).update(values)
    return Folded(made, changed, before)


Prepared = tuple[str, Callable[[Values], Any]]
"""A statement for the driver, and a function that orders a row's values for it."""


def prepared(statement: ClauseElement, dialect: Dialect) -> Prepared:
    """Return a statement in the driver's form, for code where each millisecond counts."""
    compiled = cast("SQLCompiler", statement.compile(dialect=_positional(dialect)))
    assert compiled.positiontup is not None  # noqa: S101 - true of a positional dialect
    return str(compiled), itemgetter(*compiled.positiontup)


@cache
def _positional(dialect: Dialect) -> Dialect:
    return (
        dialect
        if dialect.positional
        else cast("type[DefaultDialect]", type(dialect))(paramstyle="format")
    )


@cache
def _insert(table: Table, dialect: Dialect) -> Prepared:
    return prepared(insert(table), dialect)


@cache
def _update(table: Table, columns: tuple[str, ...], dialect: Dialect) -> Prepared:
    changed = [name for name in columns if name != "_position"]
    statement = (
        update(table)
        .where(table.c.position == bindparam("_position"))
        .values({name: bindparam(name) for name in changed})
    )
    return prepared(statement, dialect)

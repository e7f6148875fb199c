"""What a view is, and how events change its table, one event or a million.

A view has one row for each key, named by ``position``: that of the key's first event, which
never changes and orders the keys by their age. Each kind of event turns into values of columns
that follow from the event alone, so that a batch of events folds in memory into one insert or
update for each key, and live projection and replay are the same code.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, MetaData, Table, bindparam, insert, update

from domain.api_key import ApiKey
from domain.errors import PoisonEvent, ProjectionInconsistent
from domain.key_ids import to_key_id
from projections.stored_events import Recorded

Values = dict[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """A projection of the events onto a table.

    Args:
        version: counts up whenever the table or the handlers change, which makes every database
            rebuild the view when the program is next started.
        table: has the columns ``position``, the primary key, and ``key_id``, unique.
        handlers: for each kind of event, the values that it sets. A view names all of them, so
            that none is forgotten.
    """

    version: int
    table: Table
    handlers: Mapping[type[ApiKey.Event], Callable[[Any], Values]]

    @property
    def name(self) -> str:
        """The view's name, which is its table's too."""
        return self.table.name


@cache
def copy_of(table: Table, name: str) -> Table:
    """Return the same table under another name."""
    return table.to_metadata(MetaData(), name=name)


def project(connection: Connection, view: View, table: Table, recorded: Iterable[Recorded]) -> None:
    """Apply events, in their order, to a view's table or to a copy of it.

    Raises:
        PoisonEvent: a handler fails on an event.
        ProjectionInconsistent: an event changes a key that has no row.
    """
    made, changed = _fold(view, recorded)
    # Rows go to the driver in the form that it takes: to have a million dictionaries turned into
    # it costs as much as writing them.
    if made:
        statement, in_order = _insert(table, connection.dialect)
        connection.exec_driver_sql(statement, [in_order(row) for row in made.values()])
    by_columns: dict[tuple[str, ...], list[Values]] = defaultdict(list)
    for values in changed.values():
        by_columns[tuple(sorted(values))].append(values)
    for columns, rows in by_columns.items():
        statement, in_order = _update(table, columns, connection.dialect)
        updated = connection.exec_driver_sql(statement, [in_order(row) for row in rows]).rowcount
        if updated != len(rows):
            message = (
                f"{len(rows) - updated} of {len(rows)} keys have no row in {table.name}; run:"
                f" keyledger projections rebuild {view.name}"
            )
            raise ProjectionInconsistent(message)


def _fold(view: View, recorded: Iterable[Recorded]) -> tuple[dict[str, Values], dict[str, Values]]:
    """Return the rows to insert and the changes to rows that are there, by key id."""
    made: dict[str, Values] = {}
    changed: dict[str, Values] = {}
    for each in recorded:
        event = each.event
        key_id = to_key_id(event.originator_id)
        try:
            values = view.handlers[type(event)](event)
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise PoisonEvent(each.position, f"{view.name} fails on it: {error!r}") from error
        if type(event) is ApiKey.Created:
            values["position"] = each.position
            values["key_id"] = key_id
            made[key_id] = values
        elif key_id in made:
            made[key_id].update(values)
        elif values:
            values["_key_id"] = key_id
            changed.setdefault(key_id, {}).update(values)
    return made, changed


Prepared = tuple[str, Callable[[Values], Any]]
"""A statement for the driver, and what puts a row's values into its order."""


@cache
def _insert(table: Table, dialect: Dialect) -> Prepared:
    return str(insert(table).compile(dialect=dialect)), itemgetter(*table.c.keys())


@cache
def _update(table: Table, columns: tuple[str, ...], dialect: Dialect) -> Prepared:
    changed = [name for name in columns if name != "_key_id"]
    statement = (
        update(table)
        .where(table.c.key_id == bindparam("_key_id"))
        .values({name: bindparam(name) for name in changed})
    )
    compiled = statement.compile(dialect=dialect)
    assert compiled.positiontup is not None  # noqa: S101 - true of each dialect in use
    return str(compiled), itemgetter(*compiled.positiontup)

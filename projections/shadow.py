"""Shadow tables: a view made anew beside the live one, while the live one goes on serving."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, MetaData, Table, delete, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.sql.elements import quoted_name

from domain.errors import PoisonEvent, ProjectionInconsistent
from projections.database import Database
from projections.schema import projection_states
from projections.stored_events import Recorded, decode_rows, last_position, read_rows
from projections.view import View, copy_of, project

BATCH = 10_000
"""Events to a transaction: enough to make its fixed cost vanish, few enough for its memory, and
for the time for which other writers wait, to stay small."""

_UNFIT = (IntegrityError, InterfaceError, ProgrammingError, OverflowError, ProjectionInconsistent)
"""What an event causes that contradicts another, or has values that no column can hold."""


@dataclass(frozen=True, slots=True)
class ViewState:
    """How far a view's table has come."""

    view_version: int
    generation: int
    position: int
    completed_at: str | None


def read_state(connection: Connection, table_name: str) -> ViewState | None:
    """Return the state of a table, live or shadow; ``None`` if it has none."""
    row = connection.execute(
        select(
            projection_states.c.view_version,
            projection_states.c.generation,
            projection_states.c.position,
            projection_states.c.completed_at,
        ).where(projection_states.c.table_name == table_name)
    ).one_or_none()
    return None if row is None else ViewState(*row)


class Shadow:
    """One shadow table of one view."""

    def __init__(self, database: Database, view: View, purpose: str) -> None:
        """Name the shadow that serves ``purpose``; nothing is made yet."""
        self._database = database
        self.view = view
        self.table = copy_of(view.table, f"{view.name}_{purpose}")
        self.position = 0
        self.projected = 0

    def begin(self, *, resume: bool) -> None:
        """Make the table, or go on with what an interrupted run has left of it."""
        with self._database.write() as connection:
            drop_table(connection, _previous_of(self.view))
            live = read_state(connection, self.view.name)
            generation = 1 if live is None else live.generation + 1
            left = read_state(connection, self.table.name)
            if (
                resume
                and left is not None
                and (left.view_version, left.generation) == (self.view.version, generation)
                and left.position <= last_position(connection)
                and inspect(connection).has_table(self.table.name)
            ):
                self.position = left.position
                return
            drop_table(connection, self.table)
            _create(connection, self.view, self.table.name, generation)
            connection.execute(
                insert(projection_states).values(
                    table_name=self.table.name,
                    view_version=self.view.version,
                    generation=generation,
                    position=0,
                )
            )
            self.position = 0

    def project_batch(self) -> Sequence[Recorded]:
        """Project the next events; decoding them happens before the append lock is taken.

        Returns:
            The events; fewer than `BATCH` when the end of the store was reached.

        Raises:
            PoisonEvent: an event cannot be decoded or projected; what was projected before stays.
        """
        with self._database.read() as connection:
            rows = read_rows(connection, after=self.position, limit=BATCH)
        recorded = decode_rows(rows)
        if recorded:
            with self._database.write() as connection:
                self._apply(connection, recorded)
            self.position = recorded[-1].position
        return recorded

    def project_rest(self, connection: Connection) -> Sequence[Recorded]:
        """Project all that is left, in a transaction that holds the append lock."""
        rest = decode_rows(read_rows(connection, after=self.position, limit=None))
        if rest:
            self._apply(connection, rest)
            self.position = rest[-1].position
        return rest

    def take_over(self, connection: Connection, completed_at: str) -> Table:
        """Make this the live table, in a transaction that holds the append lock.

        Returns:
            What was the live table, to be dropped when the transaction has been committed.
        """
        name = self.view.name
        previous = _previous_of(self.view)
        if inspect(connection).has_table(name):
            connection.execute(text(f"ALTER TABLE {name} RENAME TO {previous.name}"))
        connection.execute(text(f"ALTER TABLE {self.table.name} RENAME TO {name}"))
        connection.execute(delete(projection_states).where(projection_states.c.table_name == name))
        connection.execute(
            update(projection_states)
            .where(projection_states.c.table_name == self.table.name)
            .values(table_name=name, completed_at=completed_at)
        )
        return previous

    def _apply(self, connection: Connection, recorded: Sequence[Recorded]) -> None:
        self._project(connection, recorded)
        self.projected += len(recorded)
        connection.execute(
            update(projection_states)
            .where(projection_states.c.table_name == self.table.name)
            .values(position=recorded[-1].position)
        )

    def _project(self, connection: Connection, recorded: Sequence[Recorded]) -> None:
        try:
            with connection.begin_nested():
                project(connection, self.view, self.table, recorded)
        except _UNFIT as error:
            if len(recorded) > 1:
                # Taken one by one, the culprit can be named.
                for each in recorded:
                    self._project(connection, [each])
                return
            reason = error.orig if isinstance(error, DBAPIError) else error
            message = f"{self.view.name} has no place for it: {reason}"
            raise PoisonEvent(recorded[0].position, message) from error


def _previous_of(view: View) -> Table:
    """Return what was a view's live table before the last rebuild, until it is dropped."""
    return copy_of(view.table, f"{view.name}_previous")


def drop_table(connection: Connection, table: Table) -> None:
    """Drop a shadow or a previous table and its state, if they are there."""
    table.drop(connection, checkfirst=True)
    connection.execute(
        delete(projection_states).where(projection_states.c.table_name == table.name)
    )


def _create(connection: Connection, view: View, name: str, generation: int) -> None:
    table = view.table.to_metadata(MetaData(), name=name)
    for index in table.indexes:
        # An index keeps its name when its table is renamed, and no two may have the same.
        index.name = quoted_name(f"{name}_{index.name}_{generation}", quote=None)
        # If one is there all the same, its table's state was lost, and with it its generation.
        connection.execute(text(f"DROP INDEX IF EXISTS {index.name}"))
    table.create(connection)

"""Shadow tables: a view is rebuilt beside the live table while that remains in use."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from sqlalchemy import Connection, Table, delete, insert, inspect, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from domain.errors import PoisonEvent, ProjectionInconsistent, RebuildRunning
from projections.rebuild.view_states import ViewState, read_state
from projections.rebuild.view_tables import create_table, drop_table, rename_table
from projections.store.database import POSTGRESQL, Database, analyze_table
from projections.store.events import (
    Recorded,
    decode_rows,
    decoded,
    last_position,
    orphaned_position,
    read_first_events,
    read_later_events,
    read_rows,
)
from projections.store.postgresql_locks import block_readers
from projections.store.postgresql_tables import copy_grants
from projections.store.schema import projection_states
from projections.store.sqlite import checkpoint_wal, has_long_wal
from projections.views.view import View, copy_of

BATCH = 2_500
"""Events per transaction: enough to make its fixed cost negligible, few enough to limit memory and
the time that other writers wait."""

KEYS = 2_000
"""Keys per transaction while a table is filled key by key, for the same reasons."""

_VALUE_ERRORS = (
    DataError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    OverflowError,
    ProjectionInconsistent,
)
"""Raised for an event that contradicts another, or whose values do not fit into a column."""


class Shadow:
    """A shadow table of a view."""

    def __init__(self, database: Database, view: View, mode: str) -> None:
        """Choose the name of the shadow table for ``mode``; create nothing yet."""
        self._database = database
        self._seals = database.seals
        self.view = view
        self.table = copy_of(view.table, f"{view.name}_{mode}")
        self._previous = copy_of(view.table, f"{view.name}_previous")
        self.position = 0
        self.projected = 0
        self._filled_to: int | None = None
        self._before_rest = 0, 0

    @property
    def reached(self) -> int:
        """The position reached so far, for display."""
        return self.position if self._filled_to is None else self._filled_to

    @property
    def is_filled(self) -> bool:
        """Whether the table has all keys that existed when it was begun."""
        return self._filled_to is None

    def begin(self, *, resume: bool) -> None:
        """Create the table, or resume with what an interrupted run left."""
        with self._database.read() as connection:
            live = read_state(connection, self.view.name)
            generation = 1 if live is None else live.generation + 1
            left = self._usable(connection, self.table)
        if resume and left is not None and left.generation == generation:
            self.position, self._filled_to = left.position, left.filled_to
            return
        drop_table(self._database, self.table)
        with self._database.write() as connection:
            create_table(connection, self.view.table, self.table.name, generation)
            self.position, self._filled_to = 0, None
            if not self.view.in_order:
                self.position, self._filled_to = last_position(connection), 0
            connection.execute(
                insert(projection_states).values(
                    table_name=self.table.name,
                    view_version=self.view.version,
                    generation=generation,
                    position=self.position,
                    filled_to=self._filled_to,
                )
            )

    def drop_previous(self) -> None:
        """Drop the table that was live before the last rebuild."""
        drop_table(self._database, self._previous)

    def reuse_previous(self) -> None:
        """Turn the previous live table into this shadow if its version fits; else drop it.

        It then looks like a rebuild that was interrupted when the table was replaced, and `begin`
        resumes it.
        """
        with self._database.read() as connection:
            live = read_state(connection, self.view.name)
            kept = self._usable(connection, self._previous)
        if live is None or kept is None:
            self.drop_previous()
            return
        drop_table(self._database, self.table)
        with self._database.write() as connection:
            rename_table(connection, self._previous, self.table)
            connection.execute(
                update(projection_states)
                .where(projection_states.c.table_name == self._previous.name)
                .values(table_name=self.table.name, generation=live.generation + 1)
            )

    def fill_batch(self) -> None:
        """Project the next keys, each with all its events up to the position at the beginning.

        Each row is written once, in table order, and never looked up again. In event order, every
        batch would change nearly every page of a large table.

        Raises:
            PoisonEvent: an event cannot be decoded or projected; earlier batches are kept.
        """
        assert self._filled_to is not None  # noqa: S101 - the caller has asked `is_filled`
        with self._database.read() as connection:
            first = read_first_events(
                connection, after=self._filled_to, until=self.position, limit=KEYS
            )
            keys = [row.originator_id for row in first]

            def events() -> Iterator[Recorded]:
                later = read_later_events(connection, keys, until=self.position)
                return decoded(chain(first, later), self._seals)

            if not self._filled_to:
                self._check_orphans(connection)
            filled_to = first[-1].id if len(first) == KEYS else None
            folded = self.view.fold(self._counted(events()))
            with self._database.write() as writing:
                self._record(writing, filled_to=filled_to, position=self.position)
                self._write(writing, folded, events)
        self._filled_to = filled_to
        self._checkpoint_long_wal()

    def project_batch(self) -> Sequence[Recorded]:
        """Project the next events; only writing happens under the append lock.

        Returns:
            The events; fewer than `BATCH` at the end of the store.

        Raises:
            PoisonEvent: an event cannot be decoded or projected; earlier batches are kept.
        """
        with self._database.read() as connection:
            rows = read_rows(connection, after=self.position, limit=BATCH)
        recorded = decode_rows(rows, self._seals)
        if recorded:
            folded = self.view.fold(self._counted(recorded))
            with self._database.write() as connection:
                self._advance(connection, recorded, folded)
        self._checkpoint_long_wal()
        return recorded

    def project_rest(self, connection: Connection) -> Sequence[Recorded]:
        """Project all remaining events, in a transaction that holds the append lock."""
        self._before_rest = self.position, self.projected
        rows = read_rows(connection, after=self.position, limit=None)
        rest = decode_rows(rows, self._seals)
        if rest:
            self._advance(connection, rest, self.view.fold(self._counted(rest)))
        return rest

    def undo_rest(self) -> None:
        """Return to the state before `project_rest`, whose transaction was rolled back."""
        self.position, self.projected = self._before_rest

    def swap_in(self, connection: Connection, completed_at: str) -> Table | None:
        """Make this the live table, in a transaction that holds the append lock.

        Returns:
            The replaced table, to be dropped after the commit; ``None`` if it is kept because it is
            of another version of the program.

        Raises:
            TableInUse: a reader holds the tables for too long; nothing was changed.
        """
        states = projection_states.c
        live = read_state(connection, self.view.name)
        there = inspect(connection).has_table(self.view.name)
        if there:
            if connection.dialect.name == POSTGRESQL:
                copy_grants(connection, self.view.table, self.table)
                block_readers(connection, self.view.table)
            rename_table(connection, self.view.table, self._previous)
        rename_table(connection, self.table, self.view.table)
        kept = there and live is not None and live.view_version != self.view.version
        replaced = states.table_name == self.view.name
        connection.execute(
            update(projection_states).where(replaced).values(table_name=self._previous.name)
            if kept
            else delete(projection_states).where(replaced)
        )
        connection.execute(
            update(projection_states)
            .where(states.table_name == self.table.name)
            .values(table_name=self.view.name, completed_at=completed_at)
        )
        return None if kept else self._previous

    def _usable(self, connection: Connection, table: Table) -> ViewState | None:
        """Return the state of a table that is not live, if it can be resumed as this shadow."""
        state = read_state(connection, table.name)
        usable = (
            state is not None
            and state.view_version == self.view.version
            and state.position <= last_position(connection)
            and inspect(connection).has_table(table.name)
        )
        return state if usable else None

    def prepare_swap(self) -> None:
        """Do maintenance now that would otherwise happen while others wait.

        The final commit would checkpoint the write-ahead log of an SQLite file. PostgreSQL would
        plan queries on the new table without statistics until autovacuum analyzes it.
        """
        if self._database.is_a_file:
            self._checkpoint_wal()
        analyze_table(self._database, self.table)

    def _checkpoint_wal(self) -> None:
        with self._database.read() as connection:
            checkpoint_wal(connection)

    def _checkpoint_long_wal(self) -> None:
        if self._database.is_a_file and has_long_wal(self._database.path):
            self._checkpoint_wal()

    def _check_orphans(self, connection: Connection) -> None:
        position = orphaned_position(connection, until=self.position)
        if position is not None:
            message = f"{self.view.name} cannot apply it: its key was never created"
            raise PoisonEvent(position, message)

    def _advance(
        self, connection: Connection, recorded: Sequence[Recorded], folded: object
    ) -> None:
        self._record(connection, filled_to=None, position=recorded[-1].position)
        self._write(connection, folded, lambda: recorded)
        self.position = recorded[-1].position

    def _counted(self, recorded: Iterable[Recorded]) -> Iterator[Recorded]:
        for each in recorded:
            self.projected += 1
            yield each

    def _record(self, connection: Connection, *, filled_to: int | None, position: int) -> None:
        states = projection_states.c
        moved = connection.execute(
            update(projection_states)
            .where(
                states.table_name == self.table.name,
                states.position == self.position,
                states.filled_to.is_not_distinct_from(self._filled_to),
            )
            .values(filled_to=filled_to, position=position)
        )
        if moved.rowcount != 1:
            # The connection that held the lock was cut, and another process has taken the lock.
            message = f"another process has taken over the rebuild of {self.table.name}"
            raise RebuildRunning(message)

    def _write(
        self, connection: Connection, folded: object, events: Callable[[], Iterable[Recorded]]
    ) -> None:
        try:
            with connection.begin_nested():
                self.view.write(connection, self.table, folded, self._seals)
        except _VALUE_ERRORS as error:
            if not _is_about_values(error):
                raise
            # One by one, the failing event can be identified.
            for each in events():
                self._project_one(connection, each)

    def _project_one(self, connection: Connection, recorded: Recorded) -> None:
        try:
            with connection.begin_nested():
                self.view.project(connection, self.table, [recorded], self._seals)
        except _VALUE_ERRORS as error:
            if not _is_about_values(error):
                raise
            reason = error.orig if isinstance(error, DBAPIError) else error
            message = f"{self.view.name} cannot apply it: {reason}"
            raise PoisonEvent(recorded.position, message) from error


def _is_about_values(error: Exception) -> bool:
    """Return whether an error is about the values written, not the connection or a privilege.

    An error without SQLSTATE is the driver's own, about a value that it rejects. Of the server's
    codes, classes 22 and 23 are about values (PostgreSQL documentation, "Error Codes").
    """
    if not isinstance(error, DBAPIError):
        return True
    if error.connection_invalidated:
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state[:2] in {"22", "23"}

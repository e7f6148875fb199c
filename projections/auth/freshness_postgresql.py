"""The freshness check on PostgreSQL: one statement, which reads the end of an index.

It returns the last observed event and all events after it, and the generation of the auth lookup.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import psycopg

from domain.errors import LedgerUnavailable
from projections.auth.new_events import (
    MAX_NEW_EVENTS,
    NewEvents,
    Observed,
    all_new,
    check_answer,
    compare,
    newest_known,
)
from projections.store import postgresql
from projections.store.database import Database
from projections.store.observed_state import Event
from projections.views import auth_lookup

# One statement sees one state of the database, and takes one round trip.
_QUERY = f"""
SELECT s.generation, e.id, e.originator_id, e.state
FROM (SELECT max(generation) AS generation FROM projection_states
      WHERE table_name = '{auth_lookup.VIEW.name}') s
LEFT JOIN (SELECT id, originator_id, state FROM events WHERE {{}}
           ORDER BY id LIMIT {MAX_NEW_EVENTS + 1}) e ON true
ORDER BY e.id
"""  # noqa: S608 - names of tables and a number
_QUERY_IN_PSYCOPG = _QUERY.format("id >= %s")
QUERY = _QUERY.format("id >= $1")
"""As libpq takes it."""

_FIRST = "id = {} OR id = (SELECT max(id) FROM events)"
_FIRST_QUERY_IN_PSYCOPG = _QUERY.format(_FIRST.format("%s"))
FIRST_QUERY = _QUERY.format(_FIRST.format("$1"))
"""Selects the last event and the one at a known position: before the first check, and where there
are too many new events to read them all."""

Rows = list[tuple[Any, ...]]
Check = Callable[[Rows], None]
"""Raises LedgerUnavailable if rows must not be used."""


def accept_all(_rows: Rows) -> None:
    """Accept all rows."""


_TIMEOUTS = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
"""Errors of a server that waited as long as it may; asking again would wait again."""


class PostgresqlFreshness:
    """A connection for freshness checks, which reconnects after it was cut."""

    is_immediate = False

    def __init__(self, database: Database) -> None:
        """Connect to the server.

        Raises:
            LedgerUnavailable: it cannot be reached.
        """
        self._database = database
        self._lock = threading.Lock()
        self._known = database.known
        self._is_closed = False
        self._connection = self._connected()

    def new_events(self, since: Observed) -> NewEvents | None:
        """Return what was committed since; ``None`` if nothing was.

        Raises:
            LedgerUnavailable: the database cannot be asked, or lacks an event that was seen.
        """
        new = None
        newest = newest_known(self._known, since)
        if since.position:
            check = partial(self._check, newest)
            rows = self._ask(_QUERY_IN_PSYCOPG, (since.position,), check=check)
            new = compare(since, 1, *read_answer(rows))
        if new is None:
            check = partial(self._check, newest, is_first=True)
            rows = self._ask(_FIRST_QUERY_IN_PSYCOPG, (newest[0],), check=check)
            return all_new(1, *read_answer(rows))
        return new if new.keys else None

    def find(self, lookup_id: str, pepper_id: str) -> auth_lookup.Found | None:
        """Return the auth row and the digest of a lookup id.

        Raises:
            LedgerUnavailable: the database cannot be asked.
            RowNotSealed: the row is not as the ledger wrote it.
        """
        seals = self._database.seals
        return auth_lookup.find_in_postgresql(self._ask, lookup_id, pepper_id, seals)

    def close(self) -> None:
        """Close the connection once no thread uses it."""
        with self._lock:
            self._is_closed = True
            self._connection.close()

    def _connected(self) -> "postgresql.LedgerConnection":
        """Connect to a server that has every event that this process has seen."""
        try:
            connection = postgresql.connect(
                self._database.url, self._database.limits, self._database.known
            )
        except psycopg.Error as error:
            raise _unavailable() from error
        newest = self._known.event
        try:
            if newest[0]:
                rows = _rows(connection, _FIRST_QUERY_IN_PSYCOPG, (newest[0],))
                self._check(newest, rows, is_first=True)
        except psycopg.Error as error:
            connection.close()
            raise _unavailable() from error
        except LedgerUnavailable:
            connection.close()
            raise
        self._timeline = connection.timeline
        return connection

    def _check(
        self, newest: Event, rows: Sequence[Sequence[Any]], *, is_first: bool = False
    ) -> None:
        check_answer(self._known, newest, read_answer(rows)[1], is_first=is_first)

    def _ask(
        self, statement: str, values: Sequence[object] = (), *, check: Check = accept_all
    ) -> Rows:
        if not self._lock.acquire(timeout=self._database.limits.lock_seconds):
            raise _unavailable()
        try:
            rows = self._ask_with_lock(statement, values)
            try:
                check(rows)
            except LedgerUnavailable:
                # The next query connects again, perhaps to another server.
                self._connection.close()
                raise
            return rows
        finally:
            self._lock.release()

    def _ask_with_lock(self, statement: str, values: Sequence[object]) -> Rows:
        try:
            if not self._known.is_outdated(self._timeline):
                return _rows(self._connection, statement, values)
        except psycopg.Error as error:
            cut = isinstance(error, psycopg.OperationalError) and not isinstance(error, _TIMEOUTS)
            if self._is_closed or not cut:
                raise _unavailable() from error
        # A query changes nothing, so it may be sent again after the connection was cut.
        self._connection.close()
        self._connection = self._connected()
        try:
            return _rows(self._connection, statement, values)
        except psycopg.Error as error:
            raise _unavailable() from error


def read_answer(rows: Sequence[Sequence[Any]]) -> tuple[int | None, list[Event]]:
    """Return the generation and the events in the rows of a freshness check."""
    generation = rows[0][0]
    return generation, [(row[1], row[2].bytes, row[3]) for row in rows if row[1] is not None]


def _rows(connection: psycopg.Connection, statement: str, values: Sequence[object]) -> Rows:
    return connection.execute(cast("Any", statement), values, binary=True).fetchall()


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("the database is not available: try again later")

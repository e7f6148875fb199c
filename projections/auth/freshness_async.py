"""The freshness check on PostgreSQL for an event loop, which must not wait for a round trip.

The query is sent now, and the answer is read when it is here. libpq can be used without waiting,
and this is all that is needed of it (PostgreSQL documentation, "Asynchronous Command Processing").
"""

from typing import NamedTuple

import psycopg
from psycopg.pq import ExecStatus, Format

from domain.errors import LedgerUnavailable
from projections.auth.freshness_postgresql import FIRST_QUERY, QUERY
from projections.auth.new_events import (
    NOTHING_OBSERVED,
    NewEvents,
    Observed,
    all_new,
    check_answer,
    compare,
    newest_known,
)
from projections.store import postgresql
from projections.store.database import Database
from projections.store.observed_state import NO_EVENT, Event

_NAME = b"new_events"
_FIRST_NAME = b"first"


class Result(NamedTuple):
    """The result of a check; ``new`` is ``None`` if nothing was committed."""

    new: NewEvents | None


class AsyncFreshnessCheck:
    """A connection for one check at a time; for one thread."""

    def __init__(self, database: Database) -> None:
        """Connect, which blocks.

        Raises:
            LedgerUnavailable: the server cannot be reached.
        """
        try:
            self._connection = postgresql.connect(database.url, database.limits, database.known)
        except psycopg.Error as error:
            raise LedgerUnavailable("the database is not available") from error
        try:
            for name, query in ((_NAME, QUERY), (_FIRST_NAME, FIRST_QUERY)):
                self._connection.pgconn.prepare(name, query.encode())
        except psycopg.Error as error:
            self._connection.close()
            raise LedgerUnavailable("the database is not available") from error
        self._known = database.known
        self._newest = NO_EVENT
        self._since: Observed | None = None
        # libpq does not return it any more after the connection was cut.
        self._fileno = self._connection.fileno()

    def fileno(self) -> int:
        """Return the socket, which is readable when there is something to `receive`."""
        return self._fileno

    def send(self, since: Observed) -> None:
        """Ask what was committed since.

        Raises:
            LedgerUnavailable: the connection was cut, or its server is on an older timeline than
                another server that was seen.
        """
        if self._known.is_outdated(self._connection.timeline):
            raise LedgerUnavailable("the database server was replaced by another one")
        self._since = since
        self._newest = newest_known(self._known, since)
        position = since.position
        name, value = (_NAME, position) if position else (_FIRST_NAME, self._newest[0])
        try:
            self._connection.pgconn.send_query_prepared(
                name, [b"%d" % value], result_format=Format.BINARY
            )
        except psycopg.Error as error:
            raise LedgerUnavailable("the database is not available") from error

    def receive(self) -> Result | None:
        """Return the result; ``None`` if it has not arrived completely.

        Raises:
            LedgerUnavailable: the connection was cut, the server refuses to answer, or it lacks an
                event that this process has seen.
        """
        assert self._since is not None  # noqa: S101 - a query was sent
        libpq = self._connection.pgconn
        try:
            libpq.consume_input()
            if libpq.is_busy():
                return None
            result = libpq.get_result()
            while libpq.get_result() is not None:
                continue
        except psycopg.Error as error:
            raise LedgerUnavailable("the database is not available") from error
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise LedgerUnavailable("the database does not answer")
        rows = [[result.get_value(row, n) for n in range(4)] for row in range(result.ntuples)]
        generation = None if rows[0][0] is None else int.from_bytes(rows[0][0])
        events: list[Event] = [
            (int.from_bytes(position), key, state)
            for _, position, key, state in rows
            if position is not None and key is not None and state is not None
        ]
        is_first = not self._since.position
        check_answer(self._known, self._newest, events, is_first=is_first)
        if is_first:
            return Result(all_new(1, generation, events))
        new = compare(self._since, 1, generation, events)
        if new is None:
            # No cached row can be trusted: start again from the last event.
            self.send(NOTHING_OBSERVED)
            return None
        return Result(new if new.keys else None)

    def close(self) -> None:
        """Cut the connection, even during a check."""
        self._connection.close()

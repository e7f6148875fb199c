"""A question to a server's fence that nobody waits for: sent now, and read when the answer is here.

An event loop must not stand still for the way to a server and back. libpq can be asked without
waiting, and this is all that is needed of it (PostgreSQL documentation, "Asynchronous Command
Processing").
"""

import psycopg
from psycopg.pq import ExecStatus, Format

from domain.errors import LedgerUnavailable
from projections.auth.freshness import (
    FIRST_QUESTION,
    QUESTION,
    News,
    Seen,
    check_answer,
    compare,
    newest_known,
)
from projections.store import postgresql
from projections.store.database import Database
from projections.store.known_history import NO_EVENT, Event

_NEWS = b"news"
_FIRST = b"first"


class Answer:
    """What a question was answered; ``news`` is ``None`` if nothing was committed since."""

    def __init__(self, news: News | None) -> None:
        self.news = news


class OpenQuestion:
    """A connection for one question at a time; of one thread."""

    def __init__(self, database: Database) -> None:
        """Connect, which takes a while.

        Raises:
            LedgerUnavailable: the server cannot be reached.
        """
        try:
            self._connection = postgresql.connect(database.url, database.limits, database.known)
        except psycopg.Error as error:
            raise LedgerUnavailable("the database cannot be asked at this moment") from error
        try:
            for name, question in ((_NEWS, QUESTION), (_FIRST, FIRST_QUESTION)):
                self._connection.pgconn.prepare(name, question.encode())
        except psycopg.Error as error:
            self._connection.close()
            raise LedgerUnavailable("the database cannot be asked at this moment") from error
        self._known = database.known
        self._newest = NO_EVENT
        self._since: Seen | None = None
        # Of a connection that was cut, libpq does not tell it any more.
        self._fileno = self._connection.fileno()

    def fileno(self) -> int:
        """Return the socket, which can be read when there is something to `receive`."""
        return self._fileno

    def send(self, since: Seen) -> None:
        """Ask what was committed since.

        Raises:
            LedgerUnavailable: the connection was cut, or is to a server that is on an older
                timeline than another one is by now.
        """
        if self._known.is_outdated(self._connection.timeline):
            raise LedgerUnavailable("the database server was replaced by another one")
        self._since = since
        self._newest = newest_known(self._known, since)
        position = since.last[0]
        name, value = (_NEWS, position) if position else (_FIRST, self._newest[0])
        try:
            self._connection.pgconn.send_query_prepared(
                name, [b"%d" % value], result_format=Format.BINARY
            )
        except psycopg.Error as error:
            raise LedgerUnavailable("the database cannot be asked at this moment") from error

    def receive(self) -> Answer | None:
        """Return the answer; ``None`` if not all of it is here.

        Raises:
            LedgerUnavailable: the connection was cut, the server refuses to answer, or it lacks an
                event that this process has seen.
        """
        assert self._since is not None  # noqa: S101 - a question was sent
        libpq = self._connection.pgconn
        try:
            libpq.consume_input()
            if libpq.is_busy():
                return None
            result = libpq.get_result()
            while libpq.get_result() is not None:
                continue
        except psycopg.Error as error:
            raise LedgerUnavailable("the database cannot be asked at this moment") from error
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise LedgerUnavailable("the database does not answer at this moment")
        rows = [[result.get_value(row, n) for n in range(4)] for row in range(result.ntuples)]
        generation = None if rows[0][0] is None else int.from_bytes(rows[0][0])
        events: list[Event] = [
            (int.from_bytes(position), key, state)
            for _, position, key, state in rows
            if position is not None and key is not None and state is not None
        ]
        is_first = not self._since.last[0]
        check_answer(self._known, self._newest, events, is_first=is_first)
        if not is_first:
            news = compare(self._since, 1, generation, events)
            if news is None:
                # Nothing that was known holds: what is the last event, then?
                self.send(Seen(None, None, NO_EVENT))
                return None
            return Answer(news if news.keys else None)
        return Answer(News(Seen(1, generation, events[-1] if events else NO_EVENT), None))

    def close(self) -> None:
        """Cut the connection, whatever is under way."""
        self._connection.close()

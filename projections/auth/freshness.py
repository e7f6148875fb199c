"""The fence: what was committed since a moment.

A row kept in memory may answer only for a ledger that has not moved since it was read. On SQLite
``PRAGMA data_version`` tells that in microseconds: on one connection it changes if, and only if,
any other connection, of this process or another, has committed (SQLite documentation, "PRAGMA
data_version"). It reads the shared index of the write-ahead log, which is memory. A PostgreSQL
server is asked for the last event known and what came after it: a look at the end of an index, and
a way there and back.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from domain.errors import LedgerUnavailable
from projections.store import postgresql
from projections.store.database import Database
from projections.store.known_history import NO_EVENT, Event, KnownHistory
from projections.store.sqlite_driver import driver
from projections.views import auth_lookup

EVENTS_LOOKED_AT = 10_000

_ILLEGIBLE = "Could not decode"
"""How the driver begins what it says of a text that is not valid UTF-8."""

# As bytes, whatever somebody may have planted: a text that is none could not be read.
_BYTES = "SELECT id, CAST(originator_id AS BLOB), CAST(state AS BLOB) FROM events"
_EVENTS = f"{_BYTES} WHERE id >= ? ORDER BY id LIMIT ?"
_FIRST_QUESTION = "id = {} OR id = (SELECT max(id) FROM events)"
_FIRST_EVENTS = f"{_BYTES} WHERE {_FIRST_QUESTION.format('?')} ORDER BY id"
_GENERATION = "SELECT generation FROM projection_states WHERE table_name = ?"
# All of it in one statement, which sees one state, and in one way there and back.
_QUESTION = f"""
SELECT s.generation, e.id, e.originator_id, e.state
FROM (SELECT max(generation) AS generation FROM projection_states
      WHERE table_name = '{auth_lookup.VIEW.name}') s
LEFT JOIN (SELECT id, originator_id, state FROM events WHERE {{}}
           ORDER BY id LIMIT {EVENTS_LOOKED_AT + 1}) e ON true
ORDER BY e.id
"""  # noqa: S608 - names of tables and a number
_QUESTION_IN_PSYCOPG = _QUESTION.format("id >= %s")
QUESTION = _QUESTION.format("id >= $1")
"""As libpq takes it."""

_FIRST_QUESTION_IN_PSYCOPG = _QUESTION.format(_FIRST_QUESTION.format("%s"))
FIRST_QUESTION = _QUESTION.format(_FIRST_QUESTION.format("$1"))
"""Asks for the last event and for the one at a known position: where nothing is known yet, and
where there are too many new events to go through."""


class Seen(NamedTuple):
    """What of the ledger is known.

    Args:
        version: a number of the fence's; ``None`` before the first question.
        generation: of the auth lookup's table.
        last: the last event looked at.
    """

    version: int | None
    generation: int | None
    last: Event


NOTHING_SEEN = Seen(None, None, NO_EVENT)


class News(NamedTuple):
    """What has come since something was seen.

    Args:
        seen: what is known now.
        keys: the ids, as they are stored, of the keys that the new events are about; ``None`` if
            nothing that was known holds any more.
    """

    seen: Seen
    keys: Sequence[bytes] | None


class Fence(Protocol):
    """Tells what was committed; for any number of threads."""

    @property
    def answers_at_once(self) -> bool:
        """Whether it takes microseconds, so that an event loop may wait for it."""

    def news(self, since: Seen) -> News | None:
        """Return what was committed since; ``None`` if nothing was.

        Raises:
            LedgerUnavailable: it cannot be told, so nothing kept in memory may answer.
        """

    def find(self, lookup_id: str, pepper_id: str) -> auth_lookup.Found | None:
        """Return what is behind a lookup id.

        Raises:
            LedgerUnavailable: the database cannot be asked.
            RowNotSealed: what is there is not as the ledger wrote it.
        """

    def close(self) -> None:
        """Give back what was taken of the database."""


def open_fence(database: Database) -> Fence:
    """Return the fence of a database.

    Raises:
        LedgerUnavailable: the database cannot be asked.
    """
    return FileFence(database) if database.is_a_file else ServerFence(database)


def compare(
    since: Seen, version: int, generation: int | None, events: Sequence[Event]
) -> News | None:
    """Return the news in what a fence was answered.

    Args:
        since: what was seen before.
        version: of the answer.
        generation: of the auth lookup's table now.
        events: from the last one that was seen on.

    Returns:
        ``None`` if nothing that was seen before can be relied on: there are too many new events,
        an event was changed, or the table was rebuilt, and may differ without an event.
    """
    known, news = (events[:1], events[1:]) if since.last[0] else ([NO_EVENT], events)
    if (
        list(known) != [since.last]
        or len(news) >= EVENTS_LOOKED_AT
        or since.version is None
        or generation != since.generation
    ):
        return None
    last = news[-1] if news else since.last
    return News(Seen(version, generation, last), [key for _, key, _ in news])


def newest_known(known: KnownHistory, since: Seen) -> Event:
    """Return the newest event that the answer to a question must have; call it before asking."""
    return max(known.event, since.last, key=lambda event: event[0])


def check_answer(
    known: KnownHistory, event: Event, events: Sequence[Event], *, is_first: bool = False
) -> None:
    """Refuse to answer from a database that lacks an event that this process has seen.

    Args:
        event: the newest one that this process had seen before it asked.
        events: the answer.
        is_first: whether it asked for the event by its position. Another answer, if it is as long
            as answers get, may end before that event; then the first question is asked next.

    Raises:
        LedgerUnavailable: it lacks the event.
    """
    ends_before = len(events) > EVENTS_LOOKED_AT and events[-1][0] < event[0]
    if is_first or not ends_before:
        known.check_events(event, events)
        if events:
            known.note(events[-1])


class FileFence:
    """SQLite's: a connection kept for asking, which is one thread's at a time."""

    answers_at_once = True

    def __init__(self, database: Database) -> None:
        """Take a connection of its own, which has all that `Database` demands of one.

        Raises:
            LedgerUnavailable: there is none to be had.
        """
        try:
            pooled = database.reader.raw_connection()
        except (SQLAlchemyError, driver.Error) as error:
            raise LedgerUnavailable("the database cannot be opened for the fence") from error
        self._connection = cast("driver.Connection", pooled.driver_connection)
        self._known = database.known
        self._lock = threading.Lock()
        self._seals = database.seals
        pooled.detach()

    def news(self, since: Seen) -> News | None:
        """Return what was committed since; ``None`` if nothing was.

        Raises:
            LedgerUnavailable: it cannot be told, so nothing kept in memory may answer.
        """
        with self._lock:
            try:
                ask = self._connection.execute
                newest = newest_known(self._known, since)
                version = ask("PRAGMA data_version").fetchone()[0]
                if version == since.version:
                    self._known.check()
                    return None
                events = ask(_EVENTS, (since.last[0], EVENTS_LOOKED_AT + 1)).fetchall()
                check_answer(self._known, newest, events)
                generation = (ask(_GENERATION, (auth_lookup.VIEW.name,)).fetchone() or [None])[0]
                news = compare(since, version, generation, events)
                if news is None:
                    events = ask(_FIRST_EVENTS, (newest[0],)).fetchall()
                    check_answer(self._known, newest, events, is_first=True)
                    last = events[-1] if events else NO_EVENT
                    news = News(Seen(version, generation, last), None)
            except driver.Error as error:
                raise _unavailable() from error
        return news

    def find(self, lookup_id: str, pepper_id: str) -> auth_lookup.Found | None:
        """Return what is behind a lookup id.

        Raises:
            LedgerUnavailable: the database cannot be asked.
            RowNotSealed: what is there is not as the ledger wrote it.
        """
        with self._lock:
            try:
                return auth_lookup.find_in_sqlite(self._rows, lookup_id, pepper_id, self._seals)
            except driver.OperationalError as error:
                if str(error).startswith(_ILLEGIBLE):
                    raise auth_lookup.not_sealed(lookup_id) from error
                raise _unavailable() from error
            except driver.Error as error:
                raise _unavailable() from error

    def close(self) -> None:
        """Give the connection back, when nobody is asking over it."""
        with self._lock:
            self._connection.close()

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()


Rows = list[tuple[Any, ...]]
Check = Callable[[Rows], None]
"""Raises LedgerUnavailable if an answer must not be used."""


def accept_all(_rows: Rows) -> None:
    """Accept every answer."""


_GIVEN_UP = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
"""What a server answers that has waited as long as it may; to ask it again is to wait again."""


class ServerFence:
    """PostgreSQL's: a connection kept for asking, made anew when it was cut."""

    answers_at_once = False

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

    def news(self, since: Seen) -> News | None:
        """Return what was committed since; ``None`` if nothing was.

        Raises:
            LedgerUnavailable: it cannot be told, so nothing kept in memory may answer.
        """
        position = since.last[0]
        news = None
        newest = newest_known(self._known, since)
        if position:
            check = partial(self._check, newest)
            rows = self._asked(_QUESTION_IN_PSYCOPG, (position,), check=check)
            news = compare(since, 1, *read_answer(rows))
        if news is None:
            check = partial(self._check, newest, is_first=True)
            rows = self._asked(_FIRST_QUESTION_IN_PSYCOPG, (newest[0],), check=check)
            generation, events = read_answer(rows)
            return News(Seen(1, generation, events[-1] if events else NO_EVENT), None)
        return news if news.keys else None

    def find(self, lookup_id: str, pepper_id: str) -> auth_lookup.Found | None:
        """Return what is behind a lookup id.

        Raises:
            LedgerUnavailable: the database cannot be asked.
            RowNotSealed: what is there is not as the ledger wrote it.
        """
        seals = self._database.seals
        return auth_lookup.find_in_postgresql(self._asked, lookup_id, pepper_id, seals)

    def close(self) -> None:
        """Give the connection back, when nobody is asking over it."""
        with self._lock:
            self._is_closed = True
            self._connection.close()

    def _connected(self) -> "postgresql.LedgerConnection":
        """Connect; what is found by this connection is not older than what was seen before."""
        try:
            connection = postgresql.connect(
                self._database.url, self._database.limits, self._database.known
            )
        except psycopg.Error as error:
            raise _unavailable() from error
        newest = self._known.event
        try:
            if newest[0]:
                rows = _rows(connection, _FIRST_QUESTION_IN_PSYCOPG, (newest[0],))
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

    def _asked(
        self, statement: str, values: Sequence[object] = (), *, check: Check = accept_all
    ) -> Rows:
        if not self._lock.acquire(timeout=self._database.limits.lock_seconds):
            raise _unavailable()
        try:
            rows = self._asked_alone(statement, values)
            try:
                check(rows)
            except LedgerUnavailable:
                # The next question connects again, perhaps to another server.
                self._connection.close()
                raise
            return rows
        finally:
            self._lock.release()

    def _asked_alone(self, statement: str, values: Sequence[object]) -> Rows:
        try:
            if not self._known.is_outdated(self._timeline):
                return _rows(self._connection, statement, values)
        except psycopg.Error as error:
            cut = isinstance(error, psycopg.OperationalError) and not isinstance(error, _GIVEN_UP)
            if self._is_closed or not cut:
                raise _unavailable() from error
        # A question changes nothing, and may be asked again where the first was cut off.
        self._connection.close()
        self._connection = self._connected()
        try:
            return _rows(self._connection, statement, values)
        except psycopg.Error as error:
            raise _unavailable() from error


def read_answer(rows: Sequence[Sequence[Any]]) -> tuple[int | None, list[Event]]:
    """Return the generation and the events in the answer to a question."""
    generation = rows[0][0]
    return generation, [(row[1], row[2].bytes, row[3]) for row in rows if row[1] is not None]


def _rows(connection: psycopg.Connection, statement: str, values: Sequence[object]) -> Rows:
    return connection.execute(cast("Any", statement), values, binary=True).fetchall()


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("the database cannot be asked at this moment; try again shortly")

"""The freshness check on SQLite.

``PRAGMA data_version`` takes microseconds: on one connection it changes if, and only if, any other
connection, of this process or another, has committed (SQLite documentation, "PRAGMA data_version").
It reads the shared index of the write-ahead log, which is in memory.
"""

import threading
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError

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
from projections.store.database import Database
from projections.store.sqlite_driver import driver
from projections.views import auth_lookup

_DECODE_ERROR = "Could not decode"
"""How the driver's message begins where a text is not valid UTF-8."""

# As bytes: somebody may have planted a text that is not valid UTF-8, which could not be read.
_BYTES = "SELECT id, CAST(originator_id AS BLOB), CAST(state AS BLOB) FROM events"
_EVENTS = f"{_BYTES} WHERE id >= ? ORDER BY id LIMIT ?"
_FIRST_EVENTS = f"{_BYTES} WHERE id = ? OR id = (SELECT max(id) FROM events) ORDER BY id"  # noqa: S608 - constants
_GENERATION = "SELECT generation FROM projection_states WHERE table_name = ?"


class SqliteFreshness:
    """A connection for freshness checks, which one thread uses at a time."""

    is_immediate = True

    def __init__(self, database: Database) -> None:
        """Take a connection with the settings that `Database` requires.

        Raises:
            LedgerUnavailable: the database cannot be opened.
        """
        try:
            pooled = database.reader.raw_connection()
        except (SQLAlchemyError, driver.Error) as error:
            raise LedgerUnavailable(
                "the database cannot be opened for the freshness check"
            ) from error
        self._connection = cast("driver.Connection", pooled.driver_connection)
        self._known = database.known
        self._lock = threading.Lock()
        self._seals = database.seals
        pooled.detach()

    def new_events(self, since: Observed) -> NewEvents | None:
        """Return what was committed since; ``None`` if nothing was.

        Raises:
            LedgerUnavailable: the database cannot be asked, or lacks an event that was seen.
        """
        with self._lock:
            try:
                return self._new_events(since)
            except driver.Error as error:
                raise _unavailable() from error

    def _new_events(self, since: Observed) -> NewEvents | None:
        ask = self._connection.execute
        newest = newest_known(self._known, since)
        version = ask("PRAGMA data_version").fetchone()[0]
        if version == since.version:
            self._known.check()
            return None
        events = ask(_EVENTS, (since.position, MAX_NEW_EVENTS + 1)).fetchall()
        check_answer(self._known, newest, events)
        generation = (ask(_GENERATION, (auth_lookup.VIEW.name,)).fetchone() or [None])[0]
        new = compare(since, version, generation, events)
        if new is None:
            events = ask(_FIRST_EVENTS, (newest[0],)).fetchall()
            check_answer(self._known, newest, events, is_first=True)
            new = all_new(version, generation, events)
        return new

    def find(self, lookup_id: str, pepper_id: str) -> auth_lookup.Found | None:
        """Return the auth row and the digest of a lookup id.

        Raises:
            LedgerUnavailable: the database cannot be asked.
            RowNotSealed: the row is not as the ledger wrote it.
        """
        with self._lock:
            try:
                return auth_lookup.find_in_sqlite(self._rows, lookup_id, pepper_id, self._seals)
            except driver.OperationalError as error:
                if str(error).startswith(_DECODE_ERROR):
                    raise auth_lookup.not_sealed(lookup_id) from error
                raise _unavailable() from error
            except driver.Error as error:
                raise _unavailable() from error

    def close(self) -> None:
        """Close the connection once no thread uses it."""
        with self._lock:
            self._connection.close()

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("the database is not available: try again later")

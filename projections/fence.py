"""The fence: whether anything was committed since a moment, in microseconds.

A row kept in memory may answer only for a ledger that has not moved since it was read. On SQLite
``PRAGMA data_version`` tells that: on one connection it changes if, and only if, any other
connection, of this process or another, has committed (SQLite documentation, "PRAGMA
data_version"). It reads the shared index of the write-ahead log, which is memory.
"""

import sqlite3
from contextlib import AbstractContextManager
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError

from domain.errors import LedgerUnavailable
from projections.database import Database


class Fence:
    """A connection kept for asking; to be used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        """Take a connection of its own, which has all that `Database` demands of one.

        Raises:
            LedgerUnavailable: there is none to be had.
        """
        try:
            pooled = database.reader.raw_connection()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise LedgerUnavailable("the database cannot be opened for the fence") from error
        self._connection = cast("sqlite3.Connection", pooled.driver_connection)
        pooled.detach()

    def version(self) -> int:
        """Return a number that differs from an earlier one if anything was committed between.

        Raises:
            LedgerUnavailable: it cannot be told, so nothing kept in memory may answer.
        """
        with _as_unavailable():
            return cast("int", self._connection.execute("PRAGMA data_version").fetchone()[0])

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Read rows over the same connection, without a transaction of its own.

        Raises:
            LedgerUnavailable: the database cannot be asked.
        """
        with _as_unavailable():
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


class _as_unavailable(AbstractContextManager[None]):  # noqa: N801 - reads as a function
    """Turn SQLite's errors into the ledger's; a class, being twice as fast as a generator."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise LedgerUnavailable(
                "the database cannot be asked at this moment; try again shortly"
            ) from error

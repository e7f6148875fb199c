"""The locks of a ledger on a PostgreSQL server.

They end with the connection or the transaction that holds them, however it ends. Each is an
advisory lock of two numbers: what it is for, and the ledger, named by the table of its events,
since a database may hold several ledgers in schemas of their own (PostgreSQL documentation,
"Advisory Locks").
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from domain.errors import LedgerUnavailable

_LOCK_NOT_AVAILABLE = "55P03"
_ALLOWED_TO_WAIT_MILLISECONDS = 200


class ReadersInTheWay(LedgerUnavailable):
    """Some that read take longer than the ones that write are to wait."""


def take_append_lock(connection: Connection) -> None:
    """Wait for the append lock, and hold it until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_named('append')})")


def take_schema_lock(connection: Connection) -> None:
    """Wait until nobody else makes or changes the tables of this schema, and hold the lock."""
    purpose = _number_of("schema")
    connection.exec_driver_sql(
        f"SELECT pg_advisory_xact_lock({purpose}, hashtext(current_schema()))"
    )


def shut_out_readers(connection: Connection, table: Table) -> None:
    """Wait until nobody reads, for a moment at most, and let nobody begin until the commit.

    Args:
        table: the view's. Who reads it by other ways than ours, or vacuums it, holds it alone.

    Raises:
        ReadersInTheWay: somebody went on reading.
    """
    try:
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {_ALLOWED_TO_WAIT_MILLISECONDS};"
            f" LOCK TABLE projection_states, {table.name} IN ACCESS EXCLUSIVE MODE"
        )
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise ReadersInTheWay("somebody goes on reading; try again shortly") from error


@contextmanager
def exclusively(engine: Engine, task: str) -> Iterator[bool]:
    """Hold the one lock of this name on a ledger, if it is free; never wait for it.

    Yields:
        Whether the lock is held.

    Raises:
        LedgerUnavailable: the server cannot be asked.
    """
    with _lent(engine) as connection:
        held = _ask(connection, f"SELECT pg_try_advisory_lock({_named(task)})")
        try:
            yield held
        finally:
            if held and not connection.closed:
                _let_go(connection)


def _let_go(connection: psycopg.Connection) -> None:
    try:
        # All that it holds, which is this one: its name may be gone with the events.
        connection.execute("SELECT pg_advisory_unlock_all()")
    except psycopg.Error:
        # Where the connection is cut, the lock goes with it.
        connection.close()


@contextmanager
def _lent(engine: Engine) -> Iterator[psycopg.Connection]:
    """Take a connection out of the pool as it is, outside a transaction."""
    try:
        lent = engine.raw_connection()
    except (SQLAlchemyError, psycopg.Error) as error:
        raise LedgerUnavailable("the database cannot be asked at this moment") from error
    try:
        yield cast("psycopg.Connection", lent.driver_connection)
    finally:
        lent.close()


def _ask(connection: psycopg.Connection, question: str) -> bool:
    try:
        return connection.execute(cast("Any", question)).fetchone() == (True,)
    except psycopg.Error as error:
        raise LedgerUnavailable("the database cannot be asked at this moment") from error


def _named(task: str) -> str:
    return f"{_number_of(task)}, 'events'::regclass::oid::int4"


def _number_of(purpose: str) -> int:
    # Not Python's own hash, which is another one in each process.
    return zlib.crc32(purpose.encode()) - 2**31

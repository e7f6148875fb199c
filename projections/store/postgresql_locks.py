"""Locks on a PostgreSQL server.

Each lock ends with the connection or transaction that holds it, even after a crash. Each is an
advisory lock of two numbers: its task, and the OID of the events table, which identifies the ledger
because one database may hold several ledgers in different schemas (PostgreSQL documentation,
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


class TableInUse(LedgerUnavailable):
    """Readers hold the tables for longer than writers may be kept waiting."""


def take_append_lock(connection: Connection) -> None:
    """Wait for the append lock; the transaction holds it until it ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_lock_numbers('append')})")


def take_schema_lock(connection: Connection) -> None:
    """Wait for the lock for creating or changing tables; the transaction holds it until it ends."""
    task = _number_of("schema")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({task}, hashtext(current_schema()))")


def block_readers(connection: Connection, table: Table) -> None:
    """Wait briefly until no transaction reads the views, then block new readers until the commit.

    Args:
        table: the view's table. It is locked too, because external queries and VACUUM use the
            table without `projection_states`.

    Raises:
        TableInUse: a reader did not finish within 200 milliseconds.
    """
    try:
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {_ALLOWED_TO_WAIT_MILLISECONDS};"
            f" LOCK TABLE projection_states, {table.name} IN ACCESS EXCLUSIVE MODE"
        )
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise TableInUse("another program keeps reading the table: try again later") from error


@contextmanager
def task_lock(engine: Engine, task: str) -> Iterator[bool]:
    """Hold the lock for a task on this ledger if it is free; never wait for it.

    Yields:
        Whether the lock is held.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    with _borrowed_connection(engine) as connection:
        held = _is_true(connection, f"SELECT pg_try_advisory_lock({_lock_numbers(task)})")
        try:
            yield held
        finally:
            if held and not connection.closed:
                _release(connection)


def _release(connection: psycopg.Connection) -> None:
    try:
        # Release all, which is this one lock: its name cannot be computed if `events` was dropped.
        connection.execute("SELECT pg_advisory_unlock_all()")
    except psycopg.Error:
        # If the connection is broken, the server has released the lock.
        connection.close()


@contextmanager
def _borrowed_connection(engine: Engine) -> Iterator[psycopg.Connection]:
    """Take a connection from the pool without beginning a transaction."""
    try:
        borrowed = engine.raw_connection()
    except (SQLAlchemyError, psycopg.Error) as error:
        raise LedgerUnavailable("the database is not available") from error
    try:
        yield cast("psycopg.Connection", borrowed.driver_connection)
    finally:
        borrowed.close()


def _is_true(connection: psycopg.Connection, question: str) -> bool:
    try:
        return connection.execute(cast("Any", question)).fetchone() == (True,)
    except psycopg.Error as error:
        raise LedgerUnavailable("the database is not available") from error


def _lock_numbers(task: str) -> str:
    return f"{_number_of(task)}, 'events'::regclass::oid::int4"


def _number_of(task: str) -> int:
    # Not Python's hash(), which differs between processes.
    return zlib.crc32(task.encode()) - 2**31

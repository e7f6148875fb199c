"""PostgreSQL: how connections are opened, and what is demanded of them."""

from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

from domain.errors import LedgerUnavailable

# LOCK TABLE takes no snapshot, and so is first: a transaction whose snapshot is older than the
# exchange of a table would find the new one empty.
_GATE = "LOCK TABLE projection_states IN ACCESS SHARE MODE"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Whoever is told that a key is revoked must find it revoked after a crash too; and the setting is
# one that an administrator may change under an open connection.
_BEGIN_WRITING = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    " SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)


_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a process takes of a server.

    Args:
        connections: that are kept for reading, and as many for writing.
        statement_seconds: after which a statement is given up, but for rebuilds and the like.
        lock_seconds: after which a wait for a lock is given up.
        connect_seconds: after which an attempt to connect is given up.
    """

    connections: int = 8
    statement_seconds: float = 30.0
    lock_seconds: float = 10.0
    connect_seconds: int = 5

    @property
    def patience_seconds(self) -> float:
        """After which a server is given up that should have given the statement up."""
        return self.statement_seconds + _GRACE_SECONDS


def open_engines(url: URL, limits: ConnectionLimits) -> tuple[Engine, Engine]:
    """Connect to a server.

    Returns:
        An engine that reads, and one that writes.

    Raises:
        DBAPIError: it cannot be reached.
        LedgerUnavailable: it does not give what is demanded.
    """
    reader, writer = (
        create_engine(
            url,
            creator=partial(_opened, url, limits, patience_seconds),
            hide_parameters=True,
            # A transaction begins with one statement of ours, in one round trip.
            isolation_level="AUTOCOMMIT",
            pool_size=limits.connections,
            max_overflow=limits.connections,
            pool_timeout=limits.lock_seconds,
            pool_pre_ping=True,
        )
        for patience_seconds in (limits.patience_seconds, None)
    )
    _demand(reader, limits, begin=_Reading())
    _demand(writer, limits, begin=lambda connection: _run(connection, _BEGIN_WRITING))
    with writer.connect():
        return reader, writer


def connection_arguments(url: URL, limits: ConnectionLimits) -> dict[str, Any]:
    """Return how to connect, but for what the URL says itself (libpq, "Parameter Key Words")."""
    arguments = {
        "application_name": "keyledger",
        "connect_timeout": limits.connect_seconds,
        # A server that vanished without a word is given up in seconds, not in hours.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    return {name: value for name, value in arguments.items() if name not in url.query}


def connect(url: URL, limits: ConnectionLimits) -> psycopg.Connection:
    """Open a connection of one's own, set up as those of the engines are.

    Raises:
        psycopg.Error: the server cannot be reached.
        LedgerUnavailable: it does not give what is demanded.
    """
    patience = limits.patience_seconds
    connection = _opened(url, limits, patience, autocommit=True, prepare_threshold=1)
    try:
        _set_up(connection, limits)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(
    url: URL,
    limits: ConnectionLimits,
    patience_seconds: float | None,
    **given: Any,  # noqa: ANN401 - psycopg's own
) -> "_Connection":
    made = url.get_dialect()().create_connect_args(url)[1]
    connection = _Connection.connect(**made, **connection_arguments(url, limits), **given)
    connection.patience_seconds = patience_seconds
    return connection


class _Connection(psycopg.Connection[Any]):
    """One that gives up a server which says nothing for longer than a statement may take.

    A server that is gone ends the connection, and one that works ends a statement that takes too
    long; one whose disk hangs does neither. Only who reads gives up: a commit that nobody has
    confirmed may yet be one, and waits for its standby for as long as that takes.
    """

    patience_seconds: float | None = None
    takes_long: bool = False
    """Whether it is waited for to the end of the transaction, whatever it does."""

    def wait(self, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        """Wait for the server.

        Raises:
            psycopg.OperationalError: it says nothing, and the connection was closed.
        """
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            self.takes_long = False
        if self.patience_seconds is None or self.takes_long:
            return super().wait(*given, **options)
        deadline = monotonic() + self.patience_seconds
        try:
            return super().wait(*given, **{"timeout": self.patience_seconds} | options)
        except psycopg.OperationalError:
            if monotonic() >= deadline:
                # Nobody knows what it would say next, and to what.
                self.pgconn.finish()
            raise


def lift_timeouts(connection: Connection) -> None:
    """Let statements, and what is done between them, take as long as they need in a transaction."""
    cast("_Connection", connection.connection.driver_connection).takes_long = True
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
    )


class _Reading:
    """Begins a transaction that reads; not behind the gate as long as there is none."""

    def __init__(self) -> None:
        self._gate_is_there = False

    def __call__(self, connection: Connection) -> None:
        if not self._gate_is_there:
            _run(connection, _BEGIN_READING)
            found = connection.exec_driver_sql("SELECT to_regclass('projection_states')").scalar()
            if found is None:
                return
            self._gate_is_there = True
            _run(connection, "ROLLBACK")
        _run(connection, f"{_BEGIN_READING}; {_GATE}")


def _run(connection: Connection, statements: str) -> None:
    connection.exec_driver_sql(statements)


def _demand(engine: Engine, limits: ConnectionLimits, *, begin: Any) -> None:  # noqa: ANN401 - a listener
    def set_up(connection: psycopg.Connection, _record: object) -> None:
        try:
            _set_up(connection, limits)
        except BaseException:
            # It is not in the pool yet, so that nobody else would close it.
            connection.close()
            raise

    def hide(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            hide_details(context.original_exception, context.sqlalchemy_exception)

    # Before the library looks at what it is connected to.
    event.listen(engine, "connect", set_up, insert=True)
    event.listen(engine, "handle_error", hide)
    event.listen(engine, "begin", begin)


def hide_details(error: psycopg.Error, *wrapped: Exception | None) -> None:
    """Take out of errors what the server tells of rows, for a verifier could be among it.

    Args:
        error: the driver's.
        wrapped: others whose messages repeat it.
    """
    detail = error.diag.message_detail
    for each in (error, *wrapped):
        if detail and each is not None:
            each.args = tuple(
                arg.replace(detail, "(not shown)") if isinstance(arg, str) else arg
                for arg in each.args
            )


def _set_up(connection: psycopg.Connection, limits: ConnectionLimits) -> None:
    connection.autocommit = True
    # In another encoding, of either side, some names cannot be written and others not read.
    connection.execute("SET client_encoding TO 'UTF8'")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = f"the database's encoding is {encoding}; make one with ENCODING 'UTF8'"
        raise LedgerUnavailable(message)
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
        message = (
            "the server is a standby; name the primary, or all of them with"
            " ?host=...&host=...&target_session_attrs=read-write"
        )
        raise LedgerUnavailable(message)
    settings = {
        "statement_timeout": limits.statement_seconds * 1000,
        "lock_timeout": limits.lock_seconds * 1000,
        "idle_in_transaction_session_timeout": limits.statement_seconds * 1000,
    }
    connection.execute("; ".join(f"SET {name} = {value:.0f}" for name, value in settings.items()))

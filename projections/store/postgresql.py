"""PostgreSQL: opens connections and enforces their settings."""

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

from domain.errors import LedgerUnavailable
from projections.store.observed_state import RESTART, ObservedState, Timeline
from projections.store.postgresql_pooling import check_sessions, is_pooled

# LOCK TABLE takes no snapshot, so it comes first: a transaction whose snapshot is older than the
# swap of a table would see the new table as empty.
_GATE = "LOCK TABLE projection_states IN ACCESS SHARE MODE"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# A revocation that was acknowledged must survive a crash. An administrator can change this setting
# while a connection is open, so it is set in each transaction.
_BEGIN_WRITING = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    " SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)

# Every role may run this by default. A standby returns no row; it is rejected later.
_TIMELINE = (
    b"SELECT system_identifier::text, pg_walfile_name(pg_current_wal_lsn())"
    b" FROM pg_control_system() WHERE NOT pg_is_in_recovery()"
)

_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the use of a PostgreSQL server by one process.

    Args:
        connections: pool size for reading, and the same for writing.
        statement_seconds: timeout of a statement; rebuilds and similar tasks have none.
        lock_seconds: timeout of waiting for a lock.
        connect_seconds: timeout of connecting.
    """

    connections: int = 8
    statement_seconds: float = 30.0
    lock_seconds: float = 10.0
    connect_seconds: int = 5

    @property
    def patience_seconds(self) -> float:
        """Seconds to wait for an answer before the connection is given up."""
        return self.statement_seconds + _GRACE_SECONDS


def open_engines(url: URL, limits: ConnectionLimits, known: ObservedState) -> tuple[Engine, Engine]:
    """Connect to a PostgreSQL server.

    Args:
        known: newest state of the ledger that this process has seen.

    Returns:
        The reading engine and the writing engine.

    Raises:
        DBAPIError: the server cannot be reached.
        LedgerUnavailable: the server does not accept a setting that the ledger needs, or a pooler
            in front of it does not keep a session for each connection.
    """
    reader, writer = (
        create_engine(
            url,
            creator=partial(_opened, url, limits, known, patience_seconds),
            hide_parameters=True,
            # Each transaction begins with one statement of ours, in one round trip.
            isolation_level="AUTOCOMMIT",
            pool_size=limits.connections,
            max_overflow=limits.connections,
            pool_timeout=limits.lock_seconds,
            pool_pre_ping=True,
            # Each new engine would look for a type that no table has.
            use_native_hstore=False,
        )
        for patience_seconds in (limits.patience_seconds, None)
    )
    _configure(reader, limits, begin=_Reading())
    _configure(writer, limits, begin=lambda connection: _run(connection, _BEGIN_WRITING))
    connect = partial(_opened, url, limits, known, limits.patience_seconds, autocommit=True)
    # Not through an engine: a pooler in statement mode rejects its first statements differently.
    with closing(connect()) as asked:
        if is_pooled(asked):
            check_sessions(connect)
    with writer.connect():
        return reader, writer


def connection_arguments(url: URL, limits: ConnectionLimits) -> dict[str, Any]:
    """Return connection arguments that the URL does not set (libpq, "Parameter Key Words")."""
    arguments = {
        "application_name": "keyledger",
        "connect_timeout": limits.connect_seconds,
        # Detect a vanished server within seconds instead of hours.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    if len(_hosts(url)) > 1:
        # Without this libpq takes the first server that answers, which may be a standby.
        arguments["target_session_attrs"] = "read-write"
    return {name: value for name, value in arguments.items() if name not in url.query}


def _hosts(url: URL) -> list[str]:
    """Return the hosts that a URL names, each as ``host`` or ``host:port``."""
    hosts = [host for value in url.normalized_query.get("host", ()) for host in value.split(",")]
    return hosts or [url.host or ""]


def connect(url: URL, limits: ConnectionLimits, known: ObservedState) -> "LedgerConnection":
    """Open a connection outside the pools, with the same settings.

    Args:
        known: newest state of the ledger that this process has seen.

    Raises:
        psycopg.Error: the server cannot be reached.
        LedgerUnavailable: the server does not accept a setting that the ledger needs.
    """
    patience = limits.patience_seconds
    connection = _opened(url, limits, known, patience, autocommit=True, prepare_threshold=1)
    try:
        _set_up(connection, limits)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(
    url: URL,
    limits: ConnectionLimits,
    known: ObservedState,
    patience_seconds: float | None,
    **given: Any,  # noqa: ANN401 - psycopg's own
) -> "LedgerConnection":
    """Connect to a server whose timeline is not older than the newest one seen before.

    Raises:
        psycopg.Error: no server can be reached.
        LedgerUnavailable: every reachable server is on an older timeline.
    """
    made = {
        **url.get_dialect()().create_connect_args(url)[1],
        **connection_arguments(url, limits),
        **given,
    }
    connection = _connected(made, limits, patience_seconds)
    if known.note_timeline(connection.timeline):
        return connection
    found = connection.timeline
    connection.close()
    # libpq takes the first server that accepts writes, and a former primary accepts them.
    for each in _one_by_one(made):
        with suppress(psycopg.Error):
            connection = _connected(each, limits, patience_seconds)
            if known.note_timeline(connection.timeline):
                return connection
            connection.close()
    raise known.refuse(
        f"the database server is on timeline {found.number if found else '?'}, but this server"
        f" has used a newer one: it is a former primary that came back after a failover; {RESTART}"
    )


def _connected(
    arguments: Mapping[str, Any], limits: ConnectionLimits, patience_seconds: float | None
) -> "LedgerConnection":
    connection = LedgerConnection.connect(**arguments)
    try:
        connection.autocommit = True
        with suppress(psycopg.errors.InsufficientPrivilege, psycopg.NotSupportedError):
            # If the server does not report its timeline, go on without it.
            rows = connection.execute(_TIMELINE).fetchall()
            connection.timeline = Timeline(rows[0][0], int(rows[0][1][:8], 16)) if rows else None
    except BaseException:
        connection.close()
        raise
    connection.patience_seconds = patience_seconds
    connection.may_be_lost_after = limits.patience_seconds
    return connection


def _one_by_one(arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield connection arguments for each host alone, if there are several.

    See libpq, "Specifying Multiple Hosts".
    """
    of_each = {
        name: str(arguments[name]).split(",")
        for name in ("host", "hostaddr", "port")
        if arguments.get(name)
    }
    count = max((len(values) for values in of_each.values()), default=1)
    for number in range(count if count > 1 else 0):
        each = {name: values[number % len(values)] for name, values in of_each.items()}
        yield {**arguments, **each}


class LedgerConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server stays silent longer than a statement may take.

    A server that is gone ends the connection, and a server that works ends a slow statement. A
    server whose disk hangs does neither. Only a reading connection gives up: an unconfirmed commit
    may still take effect, so a writing connection waits for its standby without a limit.
    """

    patience_seconds: float | None = None
    takes_long: bool = False
    """Whether to wait without a limit until the transaction ends."""
    may_be_lost_after: float | None = None
    """Seconds of silence after which a transaction that may be lost is given up."""
    may_be_lost: bool = False
    """Whether the current transaction may be lost: it does not wait for a standby, nor longer than
    a statement may take."""
    timeline: Timeline | None = None
    """The server's timeline; ``None`` if the server does not report it. It changes only by a
    restart or a promotion, and connections to standbys are rejected."""

    def wait(self, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        """Wait for the server.

        Raises:
            psycopg.OperationalError: the server was silent too long; the connection is closed.
        """
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            self.takes_long = self.may_be_lost = False
        patience = self.may_be_lost_after if self.may_be_lost else self.patience_seconds
        if patience is None or self.takes_long:
            return super().wait(*given, **options)
        deadline = monotonic() + patience
        try:
            return super().wait(*given, **{"timeout": patience} | options)
        except psycopg.OperationalError:
            if monotonic() >= deadline:
                # A late answer could be taken for the answer to another statement.
                self.pgconn.finish()
            raise


def lift_timeouts(connection: Connection) -> None:
    """Remove the timeouts of statements, and between statements, for the rest of a transaction."""
    cast("LedgerConnection", connection.connection.driver_connection).takes_long = True
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
    )


def skip_standby(connection: Connection) -> None:
    """Commit this transaction without waiting for a standby, and give up a silent server.

    For rows that may be lost and are written again later. With no synchronous standby connected, a
    commit would otherwise wait without a limit.
    """
    cast("LedgerConnection", connection.connection.driver_connection).may_be_lost = True
    connection.exec_driver_sql("SET LOCAL synchronous_commit = local")


class _Reading:
    """Begin a reading transaction with `_GATE`; without it while the table does not exist yet."""

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


def _configure(engine: Engine, limits: ConnectionLimits, *, begin: Any) -> None:  # noqa: ANN401 - a listener
    def set_up(connection: psycopg.Connection, _record: object) -> None:
        try:
            _set_up(connection, limits)
        except BaseException:
            # The connection is not in the pool yet, so nothing else would close it.
            connection.close()
            raise

    def hide(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            hide_details(context.original_exception, context.sqlalchemy_exception)

    # Before SQLAlchemy runs its own first statements.
    event.listen(engine, "connect", set_up, insert=True)
    event.listen(engine, "handle_error", hide)
    event.listen(engine, "begin", begin)


def hide_details(error: psycopg.Error, *wrapped: Exception | None) -> None:
    """Remove row values that the server quotes from error messages; they may include a verifier.

    Args:
        error: the driver's error.
        wrapped: errors whose messages repeat it.
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
    # With another encoding, on either side, some names cannot be written and others not read.
    connection.execute("SET client_encoding TO 'UTF8'")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = (
            f"the encoding of the database is {encoding}: create a database with ENCODING 'UTF8'"
        )
        raise LedgerUnavailable(message)
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
        message = (
            "the server is a standby: name the primary, or all servers with"
            " ?host=...&host=...&target_session_attrs=read-write"
        )
        raise LedgerUnavailable(message)
    settings = {
        "statement_timeout": limits.statement_seconds * 1000,
        "lock_timeout": limits.lock_seconds * 1000,
        "idle_in_transaction_session_timeout": limits.statement_seconds * 1000,
    }
    connection.execute("; ".join(f"SET {name} = {value:.0f}" for name, value in settings.items()))

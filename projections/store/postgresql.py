"""PostgreSQL: how connections are opened, and what is demanded of them."""

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
from projections.store.known_history import RESTART, KnownHistory, Timeline
from projections.store.postgresql_pooling import check_sessions, is_pooled

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

# Any role may ask this by default. A standby cannot tell it, and is refused later.
_TIMELINE = (
    b"SELECT system_identifier::text, pg_walfile_name(pg_current_wal_lsn())"
    b" FROM pg_control_system() WHERE NOT pg_is_in_recovery()"
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


def open_engines(url: URL, limits: ConnectionLimits, known: KnownHistory) -> tuple[Engine, Engine]:
    """Connect to a server.

    Args:
        known: what this process has seen of the ledger.

    Returns:
        An engine that reads, and one that writes.

    Raises:
        DBAPIError: it cannot be reached.
        LedgerUnavailable: it does not give what is demanded, or is behind a pooler that keeps no
            session for each connection.
    """
    reader, writer = (
        create_engine(
            url,
            creator=partial(_opened, url, limits, known, patience_seconds),
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
    connect = partial(_opened, url, limits, known, limits.patience_seconds, autocommit=True)
    # Not by an engine, whose first statements a pooler of statements refuses in other words.
    with closing(connect()) as asked:
        if is_pooled(asked):
            check_sessions(connect)
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
    if len(_hosts(url)) > 1:
        # Without this libpq takes the first server that answers, and that may be a standby.
        arguments["target_session_attrs"] = "read-write"
    return {name: value for name, value in arguments.items() if name not in url.query}


def _hosts(url: URL) -> list[str]:
    """Return the hosts that a URL names, each as ``host`` or ``host:port``."""
    hosts = [host for value in url.normalized_query.get("host", ()) for host in value.split(",")]
    return hosts or [url.host or ""]


def connect(url: URL, limits: ConnectionLimits, known: KnownHistory) -> "LedgerConnection":
    """Open a connection of one's own, set up as those of the engines are.

    Args:
        known: what this process has seen of the ledger.

    Raises:
        psycopg.Error: the server cannot be reached.
        LedgerUnavailable: it does not give what is demanded.
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
    known: KnownHistory,
    patience_seconds: float | None,
    **given: Any,  # noqa: ANN401 - psycopg's own
) -> "LedgerConnection":
    """Connect to a server that is not on an older timeline than one that was seen before.

    Raises:
        psycopg.Error: no server can be reached.
        LedgerUnavailable: each that can be reached is on an older timeline.
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
    # libpq takes the first server that accepts changes, and a former primary does.
    for each in _one_by_one(made):
        with suppress(psycopg.Error):
            connection = _connected(each, limits, patience_seconds)
            if known.note_timeline(connection.timeline):
                return connection
            connection.close()
    raise known.refuse(
        f"the database server is on timeline {found.number if found else '?'}, and this server has"
        f" used a newer one: it is a former primary that came back after a failover; {RESTART}"
    )


def _connected(
    arguments: Mapping[str, Any], limits: ConnectionLimits, patience_seconds: float | None
) -> "LedgerConnection":
    connection = LedgerConnection.connect(**arguments)
    try:
        connection.autocommit = True
        with suppress(psycopg.errors.InsufficientPrivilege, psycopg.NotSupportedError):
            # A server that does not tell its timeline is used without it.
            rows = connection.execute(_TIMELINE).fetchall()
            connection.timeline = Timeline(rows[0][0], int(rows[0][1][:8], 16)) if rows else None
    except BaseException:
        connection.close()
        raise
    connection.patience_seconds = patience_seconds
    connection.may_be_lost_after = limits.patience_seconds
    return connection


def _one_by_one(arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each host alone, if there are several (libpq, "Multiple Hosts")."""
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
    """One that gives up a server which says nothing for longer than a statement may take.

    A server that is gone ends the connection, and one that works ends a statement that takes too
    long; one whose disk hangs does neither. Only who reads gives up: a commit that nobody has
    confirmed may yet be one, and waits for its standby for as long as that takes.
    """

    patience_seconds: float | None = None
    takes_long: bool = False
    """Whether it is waited for to the end of the transaction, whatever it does."""
    may_be_lost_after: float | None = None
    """Seconds after which a server is given up in a transaction that may be lost."""
    may_be_lost: bool = False
    """Whether nobody waits for a standby, nor for longer than a statement may take, to the end of
    the transaction."""
    timeline: Timeline | None = None
    """Of the server; ``None`` if it does not tell it. A server changes it only by a restart or a
    promotion, and a connection to a standby is refused."""

    def wait(self, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        """Wait for the server.

        Raises:
            psycopg.OperationalError: it says nothing, and the connection was closed.
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
                # Nobody knows what it would say next, and to what.
                self.pgconn.finish()
            raise


def lift_timeouts(connection: Connection) -> None:
    """Let statements, and what is done between them, take as long as they need in a transaction."""
    cast("LedgerConnection", connection.connection.driver_connection).takes_long = True
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
    )


def wait_for_no_standby(connection: Connection) -> None:
    """Let a transaction commit without a standby, and give up a server that says nothing.

    For what may be lost, and is written again by whoever misses it. While no synchronous standby
    is there, a commit waits for one without any limit.
    """
    cast("LedgerConnection", connection.connection.driver_connection).may_be_lost = True
    connection.exec_driver_sql("SET LOCAL synchronous_commit = local")


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

"""PostgreSQL: how connections are opened, what is demanded of them, and the locks of a ledger.

Locks are the server's own and end with the connection or the transaction that holds them, however
it ends. Each is an advisory lock of two numbers: what it is for, and the ledger, named by the table
of its events, since a database may hold several ledgers in schemas of their own (PostgreSQL
documentation, "Advisory Locks").
"""

import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy import exc as sqlalchemy_errors
from sqlalchemy.engine.interfaces import ExceptionContext

from domain.errors import LedgerUnavailable, NotOwner

# LOCK TABLE takes no snapshot, and so is first: a transaction whose snapshot is older than the
# exchange of a table would find the new one empty.
_GATE = "LOCK TABLE projection_states IN ACCESS SHARE MODE"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITING = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_LOCK_NOT_AVAILABLE = "55P03"
_ALLOWED_TO_WAIT_MILLISECONDS = 200

_OWNS = (
    "SELECT current_user, coalesce((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class"
    " WHERE oid = to_regclass('events')), has_schema_privilege(current_schema(), 'CREATE'), false)"
)
_KIND = "SELECT current_setting('synchronous_commit'), pg_is_in_recovery()"


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


class ReadersInTheWay(LedgerUnavailable):
    """Some that read take longer than the ones that write are to wait."""


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
            hide_parameters=True,
            # A transaction begins with one statement of ours, in one round trip.
            isolation_level="AUTOCOMMIT",
            pool_size=limits.connections,
            max_overflow=limits.connections,
            pool_timeout=limits.lock_seconds,
            pool_pre_ping=True,
            connect_args=connection_arguments(url, limits),
        )
        for _ in range(2)
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
    made = create_engine(url).dialect.create_connect_args(url)[1]
    connection = psycopg.connect(
        **made, **connection_arguments(url, limits), autocommit=True, prepare_threshold=1
    )
    try:
        _set_up(connection, limits)
    except BaseException:
        connection.close()
        raise
    return connection


def take_append_lock(connection: Connection) -> None:
    """Wait for the append lock, and hold it until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_named('append')})")


def take_schema_lock(connection: Connection) -> None:
    """Wait until nobody else makes or changes the tables of this schema, and hold the lock."""
    purpose = _number_of("schema")
    connection.exec_driver_sql(
        f"SELECT pg_advisory_xact_lock({purpose}, hashtext(current_schema()))"
    )


def check_owner(connection: Connection, way_on: str) -> None:
    """Refuse what only the owner of the ledger's tables may do, before anything is done.

    Args:
        way_on: the command that the owner is to run.

    Raises:
        NotOwner: the role of this connection neither is the owner nor belongs to it; where there
            are no tables yet, it may not make them.
    """
    role, owns = connection.exec_driver_sql(_OWNS).one()
    if not owns:
        raise NotOwner(f"{role} does not own the ledger's tables; as their owner, run: {way_on}")


def schema_for_new_tables(connection: Connection) -> str | None:
    """Return the first schema of the search path in which this role may make tables.

    That of the ledger's tables is the first for their owner. Another role may have one of its own
    behind it, in which it makes what it compares them with.
    """
    schema: str | None = connection.exec_driver_sql(
        "SELECT name FROM unnest(current_schemas(false)) WITH ORDINALITY path (name, place)"
        " WHERE has_schema_privilege(name, 'CREATE') ORDER BY place LIMIT 1"
    ).scalar()
    return schema


def lift_statement_timeout(connection: Connection) -> None:
    """Let statements, and what is done between them, take as long as they need in a transaction."""
    connection.exec_driver_sql(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
    )


def shut_out_readers(connection: Connection) -> None:
    """Wait until nobody reads, for a moment at most, and let nobody begin until the commit.

    Raises:
        ReadersInTheWay: somebody went on reading.
    """
    try:
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = {_ALLOWED_TO_WAIT_MILLISECONDS};"
            " LOCK TABLE projection_states IN ACCESS EXCLUSIVE MODE"
        )
    except sqlalchemy_errors.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise ReadersInTheWay("somebody goes on reading; try again shortly") from error


def copy_grants(connection: Connection, of: Table, to: Table) -> None:
    """Let everybody do with a table what they may do with another one."""
    granted = connection.exec_driver_sql(
        "SELECT string_agg(a.privilege_type, ', '),"
        " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
        " FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner GROUP BY 2",
        (of.name,),
    )
    for privileges, grantee in granted.all():
        connection.exec_driver_sql(f"GRANT {privileges} ON {to.name} TO {grantee}")


def count_on_from(connection: Connection, table: Table, number: int) -> None:
    """Let the next row of a table that gets its number from the server get the one after this."""
    connection.exec_driver_sql(
        "SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (table.name, number)
    )


def identity_of(connection: Connection) -> tuple[object, ...]:
    """Return what tells the ledger of a connection from every other one, however it is reached.

    Its database and the table of its events by their numbers, and when their server was started,
    to the microsecond.
    """
    row = connection.exec_driver_sql(
        "SELECT pg_postmaster_start_time(), oid, to_regclass('events')::oid"
        " FROM pg_database WHERE datname = current_database()"
    ).one()
    return tuple(row)


def copy_rows(connection: Connection, table: Table, rows: Collection[Sequence[Any]]) -> None:
    """Write rows by COPY, which takes a fraction of the time of inserting them.

    Args:
        rows: with the values of the table's columns, in their order.

    Raises:
        DBAPIError: as for inserting them.
    """
    statement = f"COPY {table.name} ({', '.join(column.name for column in table.c)}) FROM STDIN"
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the dialect has no other
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        _hide_details(error)
        raise sqlalchemy_errors.DBAPIError.instance(
            statement, None, error, psycopg.Error, dialect=connection.dialect
        ) from error


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
    except (sqlalchemy_errors.SQLAlchemyError, psycopg.Error) as error:
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

    def hide_details(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.Error):
            _hide_details(context.original_exception, context.sqlalchemy_exception)

    # Before the library looks at what it is connected to.
    event.listen(engine, "connect", set_up, insert=True)
    event.listen(engine, "handle_error", hide_details)
    event.listen(engine, "begin", begin)


def _hide_details(error: psycopg.Error, *wrapped: Exception | None) -> None:
    """Take out of errors what the server tells of rows: a verifier could be among it."""
    detail = error.diag.message_detail
    for each in (error, *wrapped):
        if detail and each is not None:
            each.args = tuple(
                arg.replace(detail, "(not shown)") if isinstance(arg, str) else arg
                for arg in each.args
            )


def _set_up(connection: psycopg.Connection, limits: ConnectionLimits) -> None:
    connection.autocommit = True
    # In another encoding, the driver gives bytes for texts.
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = f"the database's encoding is {encoding}; make one with ENCODING 'UTF8'"
        raise LedgerUnavailable(message)
    synchronous_commit, in_recovery = connection.execute(_KIND).fetchone() or ("", False)
    if in_recovery:
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
    statements = [f"SET {name} = {value:.0f}" for name, value in settings.items()]
    if synchronous_commit == "off":
        # Whoever is told that a key is revoked must find it revoked after a crash too.
        statements.append("SET synchronous_commit = on")
    connection.execute("; ".join(statements))

"""The database of a ledger and its transactions, on SQLite and on PostgreSQL.

A reading transaction sees one unchanging state. A writing transaction sees what was committed
before each of its statements. An appending transaction also holds the append lock from beginning to
end, so that events are committed in the order of their positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from sqlalchemy import URL, Connection, Engine, Table, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from domain.errors import LedgerUnavailable
from projections.store import postgresql, postgresql_locks, postgresql_tables, sqlite
from projections.store.observed_state import ObservedState
from projections.store.postgresql import ConnectionLimits
from projections.store.private_files import FileOwner, owner_of
from projections.store.seals import Seals

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
KINDS_OF_URL = "sqlite:////absolute/path or postgresql+psycopg://user@host/database"


@dataclass(frozen=True, slots=True)
class Database:
    """An open database of a ledger.

    Args:
        url: its URL.
        reader: engine whose connections cannot write.
        writer: engine whose connections can write.
        file_id: device and inode of the SQLite file when it was opened; ``None`` for a server.
        limits: limits on the use of a PostgreSQL server.
        known: newest state of the ledger that was seen through this database.
        waits_for_standby: whether commits wait for a synchronous standby, if one is configured.
        given_seals: keys of the ledger's seals; ``None`` if nothing sealed is read or written.
        owner: owner of files created for the database; ``None`` for the owner of their folders.
    """

    url: URL
    reader: Engine
    writer: Engine
    file_id: sqlite.FileId | None
    limits: ConnectionLimits
    known: ObservedState = field(default_factory=ObservedState)
    waits_for_standby: bool = True
    given_seals: Seals | None = None
    owner: FileOwner | None = None

    def sealed_by(self, seals: Seals) -> "Database":
        """Return the same database with the keys of its ledger's seals."""
        return replace(self, given_seals=seals)

    @property
    def seals(self) -> Seals:
        """The keys of the ledger's seals; the database must have been opened with them."""
        assert self.given_seals is not None, f"{self.name} was opened without seals"  # noqa: S101 - the caller's bug
        return self.given_seals

    @property
    def name(self) -> str:
        """The URL without passwords, for display."""
        return url_without_passwords(self.url)

    @property
    def is_a_file(self) -> bool:
        """Whether it is a local file, which answers in microseconds."""
        return self.file_id is not None

    @property
    def path(self) -> Path:
        """The file of an SQLite database; it must be one."""
        assert self.is_a_file, f"{self.name} is not a file"  # noqa: S101 - the caller's bug
        return Path(self.url.database or "")

    def without_standby(self) -> "Database":
        """Return the same database for writing rows that may be lost when a standby takes over.

        Its commits do not wait for a standby. Other commits wait without a limit while no standby
        is connected.
        """
        return replace(self, waits_for_standby=False)

    def is_in_place(self) -> bool:
        """Return whether the path of the SQLite file still leads to the file that is open.

        It does not after another file was moved there; nobody else would see what is written then.
        """
        return self.file_id is None or sqlite.file_id_of(self.path) == self.file_id

    def is_same_as(self, other: "Database") -> bool:
        """Return whether another database is the same one, opened again under any name.

        Raises:
            LedgerUnavailable: one of them did not answer.
        """
        if self.is_a_file or other.is_a_file:
            return self.file_id == other.file_id
        with self.read() as ours, other.read() as theirs:
            return postgresql_tables.identity_of(ours) == postgresql_tables.identity_of(theirs)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that sees one unchanging state and cannot write.

        Raises:
            LedgerUnavailable: the database did not answer.
        """
        with _as_unavailable(), self.reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction for rows that are neither events nor derived from events.

        Raises:
            LedgerUnavailable: the database did not answer, or was locked for too long.
        """
        with _as_unavailable(), self.writer.begin() as connection:
            if not self.waits_for_standby and connection.dialect.name == POSTGRESQL:
                postgresql.skip_standby(connection)
            yield connection

    @contextmanager
    def append(self) -> Iterator[Connection]:
        """Begin a transaction that holds the append lock from its beginning.

        Raises:
            LedgerUnavailable: the database did not answer, or the lock was held for too long.
        """
        with self.write() as connection:
            take_append_lock(connection)
            yield connection

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.reader.dispose()
        self.writer.dispose()


def url_without_passwords(url: URL) -> str:
    """Return a URL without passwords, in every parameter where libpq reads one."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


def take_append_lock(connection: Connection) -> None:
    """Wait for the append lock and hold it until the transaction ends.

    On SQLite every writing transaction already holds the only lock.
    """
    if connection.dialect.name == POSTGRESQL:
        postgresql_locks.take_append_lock(connection)


def take_schema_lock(connection: Connection) -> None:
    """Wait for the lock for creating or changing tables; hold it until the transaction ends."""
    if connection.dialect.name == POSTGRESQL:
        postgresql_locks.take_schema_lock(connection)


def check_owner(connection: Connection, command: str) -> None:
    """Reject what only the owner of the tables may do; on SQLite everybody who can write may.

    Args:
        command: the command for the owner to run.

    Raises:
        NotOwner: the connection's role is not the owner.
    """
    if connection.dialect.name == POSTGRESQL:
        postgresql_tables.check_owner(connection, command)


def check_privileges(database: Database, views: postgresql_tables.Written) -> None:
    """Refuse to serve with a role that would fail at the first change of a key.

    Args:
        views: what a server writes to the tables of the views.

    Raises:
        LedgerUnavailable: the role lacks a privilege.
    """
    if database.url.get_backend_name() != POSTGRESQL:
        return
    with database.read() as connection:
        postgresql_tables.check_privileges(connection, views)


def schema_for_new_tables(connection: Connection) -> str | None:
    """Return the schema for new tables; ``None`` for the default schema."""
    if connection.dialect.name == POSTGRESQL:
        return postgresql_tables.schema_for_new_tables(connection)
    return None


def mode_of_role(connection: Connection, mode: str) -> str:
    """Return a name part for shadow tables that no other role uses; the owner's is unchanged."""
    if connection.dialect.name == POSTGRESQL:
        return postgresql_tables.mode_of_role(connection, mode)
    return mode


def lift_timeouts(connection: Connection) -> None:
    """Remove the statement timeout for the rest of a transaction.

    For long tasks that a person started and waits for, such as a rebuild.
    """
    if connection.dialect.name == POSTGRESQL:
        postgresql.lift_timeouts(connection)


def analyze_table(database: Database, table: Table) -> None:
    """Update the planner statistics of a table that was filled in one go.

    Autovacuum does this later, after minutes. SQLite's plans do not depend on statistics here.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    if database.url.get_backend_name() == POSTGRESQL:
        with database.write() as connection:
            lift_timeouts(connection)
            connection.exec_driver_sql(f"ANALYZE {table.name}")


def open_database(
    url: str | URL,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - a frozen value
    owner: FileOwner | None = None,
) -> Database:
    """Open a database; create an SQLite file with mode 0600 if it does not exist.

    Args:
        url: its URL.
        limits: limits for a PostgreSQL server; SQLite has its own.
        owner: owner of a new file, and of files beside a server's database; ``None`` for the owner
            of their folders.

    Raises:
        LedgerUnavailable: it cannot be opened, or does not give the durability that is required.
        ValueError: this kind of database is not supported.
    """
    parsed = make_url(url)
    with _opening(url_without_passwords(parsed)):
        if parsed.drivername == "postgresql+psycopg":
            known = ObservedState()
            engines = postgresql.open_engines(parsed, limits, known)
            return Database(parsed, *engines, None, limits, known, owner=owner)
        if parsed.get_backend_name() == SQLITE and sqlite.names_a_file(parsed):
            reader, writer = sqlite.open_engines(parsed, owner)
            path = Path(parsed.database or "")
            file_id = sqlite.file_id_of(path)
            return Database(parsed, reader, writer, file_id, limits, owner=owner_of(path))
    message = f"{url_without_passwords(parsed)} is not supported: use {KINDS_OF_URL}"
    raise ValueError(message)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    """Turn errors while opening a database into a `LedgerUnavailable` that names the cause."""
    try:
        yield
    except (DBAPIError, psycopg.Error, OSError) as error:
        why = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        raise LedgerUnavailable(f"cannot open the database {name}: {why}") from error


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """Turn the driver's errors in a transaction into `LedgerUnavailable`."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        check_granted(error)
        message = "the database is not available: try again later"
        raise LedgerUnavailable(message) from error


def check_granted(error: BaseException) -> None:
    """Raise if an error is a missing privilege, which trying again does not fix.

    Raises:
        LedgerUnavailable: the error, or its cause, is a missing privilege.
    """
    if postgresql_tables.is_not_granted(error):
        message = (
            "the database role of this program lacks a privilege: let the database administrator"
            " run docs/postgresql-roles.sql again"
        )
        raise LedgerUnavailable(message) from error

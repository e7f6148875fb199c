"""The database: what a ledger's transactions are, in whichever kind of database it is kept.

One that reads sees one unchanging state. One that writes sees what was committed before each of its
statements. One that appends holds the append lock besides, from its beginning to its end, so that
events are committed in the order of their positions.
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
from projections.store.known_history import KnownHistory
from projections.store.postgresql import ConnectionLimits
from projections.store.private_files import FileOwner, owner_of
from projections.store.seals import Seals

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
KINDS_OF_URL = "sqlite:////absolute/path or postgresql+psycopg://user@host/database"


@dataclass(frozen=True, slots=True)
class Database:
    """A ledger's database, open.

    Args:
        url: where it is.
        reader: gives connections that cannot write.
        writer: gives connections that can.
        file_id: what the file of an SQLite database was when it was opened.
        limits: of what is taken of a server.
        known: the newest state of the ledger that was seen through it.
        waits_for_standby: whether a commit waits for a synchronous standby, if there is to be one.
        given_seals: the keys of the ledger's seals; ``None`` where nothing sealed is read or
            written.
        owner: of the files that are made for it; ``None`` for the owner of their folders.
    """

    url: URL
    reader: Engine
    writer: Engine
    file_id: sqlite.FileId | None
    limits: ConnectionLimits
    known: KnownHistory = field(default_factory=KnownHistory)
    waits_for_standby: bool = True
    given_seals: Seals | None = None
    owner: FileOwner | None = None

    def sealed_by(self, seals: Seals) -> "Database":
        """Return the same database, with the keys of its ledger's seals."""
        return replace(self, given_seals=seals)

    @property
    def seals(self) -> Seals:
        """The keys of the ledger's seals; a database opened without them has none."""
        assert self.given_seals is not None, f"{self.name} was opened without seals"  # noqa: S101 - whoever asks has to know
        return self.given_seals

    @property
    def name(self) -> str:
        """The URL as people may see it, without a password."""
        return url_for_people(self.url)

    @property
    def is_a_file(self) -> bool:
        """Whether it is a file of this machine, which answers in microseconds."""
        return self.file_id is not None

    @property
    def path(self) -> Path:
        """The file of an SQLite database; a server's has none."""
        assert self.is_a_file, f"{self.name} is no file"  # noqa: S101 - whoever asks has to know
        return Path(self.url.database or "")

    def without_standby(self) -> "Database":
        """Return the same database, for writing what may be lost when a standby takes over.

        Its commits wait for no standby. Others wait without any limit while none is there.
        """
        return replace(self, waits_for_standby=False)

    def is_in_place(self) -> bool:
        """Tell whether the file that is open is still the one that is called so.

        It is not when another was put in its place: what is written then is seen by nobody else.
        """
        return self.file_id is None or sqlite.file_id_of(self.path) == self.file_id

    def is_same_as(self, other: "Database") -> bool:
        """Tell whether another one is this one, opened once more, by whatever name.

        Raises:
            LedgerUnavailable: one of them cannot be asked.
        """
        if self.is_a_file or other.is_a_file:
            return self.file_id == other.file_id
        with self.read() as ours, other.read() as theirs:
            return postgresql_tables.identity_of(ours) == postgresql_tables.identity_of(theirs)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one unchanging state and can change nothing.

        Raises:
            LedgerUnavailable: the database cannot be asked.
        """
        with _as_unavailable(), self.reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction for what is no event, and no view of events.

        Raises:
            LedgerUnavailable: the database cannot be asked, or was not free in time.
        """
        with _as_unavailable(), self.writer.begin() as connection:
            if not self.waits_for_standby and connection.dialect.name == POSTGRESQL:
                postgresql.wait_for_no_standby(connection)
            yield connection

    @contextmanager
    def append(self) -> Iterator[Connection]:
        """Open a transaction that holds the append lock from its beginning.

        Raises:
            LedgerUnavailable: the database cannot be asked, or the lock was not free in time.
        """
        with self.write() as connection:
            take_append_lock(connection)
            yield connection

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.reader.dispose()
        self.writer.dispose()


def url_for_people(url: URL) -> str:
    """Return a URL without the passwords that are in it, wherever libpq looks for them."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


def take_append_lock(connection: Connection) -> None:
    """Wait for the append lock and hold it until the transaction ends.

    On SQLite, each transaction that writes holds the one lock there is from its beginning.
    """
    if connection.dialect.name == POSTGRESQL:
        postgresql_locks.take_append_lock(connection)


def take_schema_lock(connection: Connection) -> None:
    """Wait until nobody else makes or changes the tables, until the transaction ends."""
    if connection.dialect.name == POSTGRESQL:
        postgresql_locks.take_schema_lock(connection)


def check_owner(connection: Connection, way_on: str) -> None:
    """Refuse what only the owner of the tables may do; a file is owned by whoever can write to it.

    Args:
        way_on: the command that the owner is to run.

    Raises:
        NotOwner: this runs as another role.
    """
    if connection.dialect.name == POSTGRESQL:
        postgresql_tables.check_owner(connection, way_on)


def check_privileges(database: Database) -> None:
    """Refuse to serve as a role that would fail at the first change of a key.

    Raises:
        LedgerUnavailable: the role lacks a privilege.
    """
    if database.url.get_backend_name() != POSTGRESQL:
        return
    with database.read() as connection:
        postgresql_tables.check_privileges(connection)


def schema_for_new_tables(connection: Connection) -> str | None:
    """Return the schema in which to make a table; ``None`` for where one is made untold."""
    if connection.dialect.name == POSTGRESQL:
        return postgresql_tables.schema_for_new_tables(connection)
    return None


def purpose_of_role(connection: Connection, purpose: str) -> str:
    """Return a purpose for a shadow table that no other role has; the owner has it unchanged."""
    if connection.dialect.name == POSTGRESQL:
        return postgresql_tables.purpose_of_role(connection, purpose)
    return purpose


def take_as_long_as_needed(connection: Connection) -> None:
    """Lift the limit on the time of a statement, for the rest of a transaction.

    For what a person has asked for and waits for, such as a rebuild.
    """
    if connection.dialect.name == POSTGRESQL:
        postgresql.lift_timeouts(connection)


def take_statistics(database: Database, table: Table) -> None:
    """Let a server learn what is in a table that was filled at once, by which it plans answers.

    It comes round to that by itself, minutes later. A file's plans are the same without.

    Raises:
        LedgerUnavailable: the database cannot be asked.
    """
    if database.url.get_backend_name() == POSTGRESQL:
        with database.write() as connection:
            take_as_long_as_needed(connection)
            connection.exec_driver_sql(f"ANALYZE {table.name}")


def open_database(
    url: str | URL,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - a frozen value
    owner: FileOwner | None = None,
) -> Database:
    """Open a database; the file of a new one is made readable to its owner alone.

    Args:
        url: where it is.
        limits: for a server's; a file has its own.
        owner: of a new file, and of the files beside a server's database; ``None`` for the owner of
            their folders.

    Raises:
        LedgerUnavailable: it cannot be opened, or does not give the durability demanded.
        ValueError: it is of a kind that is not supported.
    """
    parsed = make_url(url)
    with _opening(url_for_people(parsed)):
        if parsed.drivername == "postgresql+psycopg":
            known = KnownHistory()
            engines = postgresql.open_engines(parsed, limits, known)
            return Database(parsed, *engines, None, limits, known, owner=owner)
        if parsed.get_backend_name() == SQLITE and sqlite.names_a_file(parsed):
            reader, writer = sqlite.open_engines(parsed, owner)
            path = Path(parsed.database or "")
            file_id = sqlite.file_id_of(path)
            return Database(parsed, reader, writer, file_id, limits, owner=owner_of(path))
    message = f"{url_for_people(parsed)}: give the URL of a database, {KINDS_OF_URL}"
    raise ValueError(message)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    """Turn what goes wrong at an opening into a refusal that says why."""
    try:
        yield
    except (DBAPIError, psycopg.Error, OSError) as error:
        why = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        raise LedgerUnavailable(f"cannot open the database {name}: {why}") from error


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """Turn what the driver raises in a transaction into a refusal."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        check_granted(error)
        message = "the database cannot be asked at this moment; try again shortly"
        raise LedgerUnavailable(message) from error


def check_granted(error: BaseException) -> None:
    """Tell an error for want of a privilege, which no trying again mends, from all others.

    Raises:
        LedgerUnavailable: it, or what it came from, is one.
    """
    if postgresql_tables.is_not_granted(error):
        message = (
            "the database does not let the role of this program do that; its administrator grants"
            " it by running docs/postgresql-roles.sql once more"
        )
        raise LedgerUnavailable(message) from error

"""The database: how connections are opened, and what is demanded of them.

SQLite takes one writer at a time, and a transaction that begins by reading and then writes fails
when another has written in between. So there are two engines: one writes, on a single connection
whose transactions begin with ``BEGIN IMMEDIATE`` (threads of this process queue for it, other
processes wait for the file's lock); one reads, and cannot write.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from domain.errors import LedgerUnavailable

BUSY_TIMEOUT_SECONDS = 10
READ_CONNECTIONS = 16

_PRAGMAS = {
    # Readers never wait for the writer, nor the writer for readers.
    "journal_mode": "wal",
    # 2 is FULL: a commit is on the disk when it returns. WAL with NORMAL may lose the last ones.
    "synchronous": "2",
    "busy_timeout": str(BUSY_TIMEOUT_SECONDS * 1000),
    "foreign_keys": "1",
    # A schema planted in the file must not be able to call functions when it is read.
    "trusted_schema": "0",
    # The rest of a large write-ahead log, such as a rebuild leaves, is given back.
    "journal_size_limit": str(64 * 1024 * 1024),
}
_PRAGMAS_OF_THE_WRITER = {
    # 64 MiB, so that a rebuild's indexes, which it fills in random order, are not read over and
    # over; and a checkpoint after 16 MiB, so that a page changed often is copied once.
    "cache_size": "-65536",
    "wal_autocheckpoint": "4096",
}


@dataclass(frozen=True, slots=True)
class Database:
    """A ledger's database, open."""

    url: URL
    reader: Engine
    writer: Engine
    file_id: tuple[int, int]

    @property
    def name(self) -> str:
        """The URL as people may see it, without a password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
        return Path(self.url.database or "")

    def is_in_place(self) -> bool:
        """Tell whether the file that is open is still the one that is called so.

        It is not when another was put in its place: what is written then is seen by nobody else.
        """
        try:
            return _file_id(self.path) == self.file_id
        except OSError:
            return False

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
        """Open a transaction that holds the append lock from its beginning.

        Raises:
            LedgerUnavailable: the database cannot be asked, or the lock was not free in time.
        """
        with _as_unavailable(), self.writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.reader.dispose()
        self.writer.dispose()


def open_database(url: str | URL) -> Database:
    """Open a database; the file of a new one is made readable to its owner alone.

    Raises:
        LedgerUnavailable: it cannot be opened, or does not give the durability demanded.
        ValueError: it is of a kind that is not supported.
    """
    parsed = make_url(url)
    file = parsed.database or ":memory:"
    if parsed.get_backend_name() != "sqlite" or file.startswith((":memory:", "file:")):
        message = f"{parsed.render_as_string()}: give the URL of an SQLite file, sqlite:///PATH"
        raise ValueError(message)
    with _as_unavailable(f"cannot open the database {parsed.render_as_string()}"):
        _create_private_file(Path(file))
        writer = create_engine(
            parsed,
            hide_parameters=True,
            pool_size=1,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_SECONDS,
        )
        reader = create_engine(
            parsed,
            hide_parameters=True,
            pool_size=READ_CONNECTIONS,
            max_overflow=READ_CONNECTIONS,
            pool_timeout=BUSY_TIMEOUT_SECONDS,
        )
        _demand(writer, _PRAGMAS | _PRAGMAS_OF_THE_WRITER, begin="BEGIN IMMEDIATE")
        _demand(reader, _PRAGMAS | {"query_only": "1"}, begin="BEGIN")
        with writer.connect():
            file_id = _file_id(Path(file))
    return Database(parsed, reader, writer, file_id)


@contextmanager
def _as_unavailable(opening: str | None = None) -> Iterator[None]:
    """Turn what the driver raises into a refusal; whoever opens a database also learns why."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, OSError) as error:
        message = "the database cannot be asked at this moment; try again shortly"
        if opening is not None:
            message = f"{opening}: {error.orig if isinstance(error, DBAPIError) else error}"
        raise LedgerUnavailable(message) from error


def _file_id(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _create_private_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _demand(engine: Engine, pragmas: dict[str, str], *, begin: str) -> None:
    """Set up every connection of the engine, and refuse one that does not comply."""

    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        try:
            _set_pragmas(connection, pragmas)
        except BaseException:
            # It is not in the pool yet, so that nobody else would close it.
            connection.close()
            raise

    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin_transaction)


def _set_pragmas(connection: sqlite3.Connection, pragmas: dict[str, str]) -> None:
    # The driver would begin transactions by itself, and late; `begin` above does it instead.
    connection.isolation_level = None
    # The timeout comes first: switching to WAL may have to wait for another process.
    for name in sorted(pragmas, key="busy_timeout".__ne__):
        connection.execute(f"PRAGMA {name} = {pragmas[name]}")
    for name, demanded in pragmas.items():
        found = str(connection.execute(f"PRAGMA {name}").fetchone()[0])
        if found != demanded:
            message = f"SQLite gives {name} = {found}; the ledger needs {demanded}"
            raise LedgerUnavailable(message)

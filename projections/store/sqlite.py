"""SQLite: opens connections and enforces their settings.

SQLite allows one writer at a time, and a transaction that reads first and then writes fails if
another one has written in between. So there are two engines. The writer has a single connection
whose transactions begin with ``BEGIN IMMEDIATE``: threads of this process queue for it, other
processes wait for the file's lock. The reader has several connections that cannot write.
"""

from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event

from domain.errors import LedgerUnavailable
from projections.store.private_files import FileOwner, make_private_file
from projections.store.sqlite_driver import driver

BUSY_TIMEOUT_SECONDS = 10
READ_CONNECTIONS = 16
LONG_WAL = 4 * 1024 * 1024

FileId = tuple[int, int]

_PRAGMAS = {
    # Readers never wait for the writer, and the writer never waits for readers.
    "journal_mode": "wal",
    # 2 is FULL: a commit is on disk when it returns. WAL with NORMAL may lose the last commits.
    "synchronous": "2",
    "busy_timeout": str(BUSY_TIMEOUT_SECONDS * 1000),
    "foreign_keys": "1",
    # A schema that an attacker wrote into the file must not call functions when it is read.
    "trusted_schema": "0",
    # Truncate a large write-ahead log (a rebuild leaves one) to this size after a checkpoint.
    "journal_size_limit": str(64 * 1024 * 1024),
}
_PRAGMAS_OF_THE_WRITER = {
    # A cache of 64 MiB, because a rebuild fills indexes in random order and would read their pages
    # again and again; a checkpoint after 16 MiB, so that a page that changes often is copied once.
    "cache_size": "-65536",
    "wal_autocheckpoint": "4096",
    # What a rebuild drops is derived from events, which stay. Some builds of SQLite overwrite
    # deleted pages with zeros; dropping a table of a million rows then takes seconds.
    "secure_delete": "0",
}


def names_a_file(url: URL) -> bool:
    """Return whether a URL names a database file by its path."""
    return not (url.database or ":memory:").startswith((":memory:", "file:"))


def file_id_of(path: Path) -> FileId | None:
    """Return the device and inode number of a file; ``None`` if the file does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_engines(url: URL, owner: FileOwner | None = None) -> tuple[Engine, Engine]:
    """Open a database file; create it with mode 0600 if it does not exist.

    Args:
        owner: owner of a new file; ``None`` means the owner of its folder.

    Returns:
        The reading engine and the writing engine.

    Raises:
        DBAPIError, OSError: the file cannot be opened.
        LedgerUnavailable: SQLite does not accept a setting that the ledger needs.
    """
    path = Path(url.database or "")
    if not path.exists():
        make_private_file(path, b"", owner)
    writer = create_engine(
        url,
        module=driver,
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
    )
    reader = create_engine(
        url,
        module=driver,
        hide_parameters=True,
        pool_size=READ_CONNECTIONS,
        max_overflow=READ_CONNECTIONS,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
    )
    _configure(writer, _PRAGMAS | _PRAGMAS_OF_THE_WRITER, begin="BEGIN IMMEDIATE")
    _configure(reader, _PRAGMAS | {"query_only": "1"}, begin="BEGIN")
    with writer.connect():
        return reader, writer


def has_long_wal(path: Path) -> bool:
    """Return whether the write-ahead log of a file is so long that it slows down commits."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > LONG_WAL
    except FileNotFoundError:
        return False


def checkpoint_wal(connection: Connection) -> None:
    """Copy committed pages from the write-ahead log to the database file without blocking anyone.

    Otherwise SQLite does this inside the commit that finds the log too long, on the only connection
    that writes. See SQLite documentation, "PRAGMA wal_checkpoint", mode PASSIVE.

    Args:
        connection: must not have read anything yet in its transaction; it may be read-only.
    """
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def _configure(engine: Engine, pragmas: dict[str, str], *, begin: str) -> None:
    """Apply settings to every connection of the engine; reject a connection that ignores one."""

    def set_up(connection: driver.Connection, _record: object) -> None:
        try:
            _set_pragmas(connection, pragmas)
        except BaseException:
            # The connection is not in the pool yet, so nothing else would close it.
            connection.close()
            raise

    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin_transaction)


def _set_pragmas(connection: driver.Connection, pragmas: dict[str, str]) -> None:
    # Otherwise the driver begins transactions itself, and too late; `begin` above does it.
    connection.isolation_level = None
    # The timeout comes first: switching to WAL may have to wait for another process.
    for name in sorted(pragmas, key="busy_timeout".__ne__):
        connection.execute(f"PRAGMA {name} = {pragmas[name]}")
    for name, demanded in pragmas.items():
        found = str(connection.execute(f"PRAGMA {name}").fetchone()[0])
        if found != demanded:
            message = f"SQLite has {name} = {found}, but the ledger needs {demanded}"
            raise LedgerUnavailable(message)

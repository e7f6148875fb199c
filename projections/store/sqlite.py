"""SQLite: how connections are opened, and what is demanded of them.

SQLite takes one writer at a time, and a transaction that begins by reading and then writes fails
when another has written in between. So there are two engines: one writes, on a single connection
whose transactions begin with ``BEGIN IMMEDIATE`` (threads of this process queue for it, other
processes wait for the file's lock); one reads, and cannot write.
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
    # What is dropped is derived from events, which stay. Some builds of SQLite write zeros over
    # it, page by page, and a table of a million rows then takes seconds to drop.
    "secure_delete": "0",
}


def names_a_file(url: URL) -> bool:
    """Tell whether a URL is that of a file, by its path."""
    return not (url.database or ":memory:").startswith((":memory:", "file:"))


def file_id_of(path: Path) -> FileId | None:
    """Return what tells a file from every other one; ``None`` if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_engines(url: URL, owner: FileOwner | None = None) -> tuple[Engine, Engine]:
    """Open a file, made readable to its owner alone if it is new.

    Args:
        owner: of a new file; ``None`` for the owner of its folder.

    Returns:
        An engine that reads, and one that writes.

    Raises:
        DBAPIError, OSError: it cannot be opened.
        LedgerUnavailable: it does not give what is demanded.
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
    _demand(writer, _PRAGMAS | _PRAGMAS_OF_THE_WRITER, begin="BEGIN IMMEDIATE")
    _demand(reader, _PRAGMAS | {"query_only": "1"}, begin="BEGIN")
    with writer.connect():
        return reader, writer


def has_long_wal(path: Path) -> bool:
    """Tell whether a file's write-ahead log has become so long that a commit is held up by it."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > LONG_WAL
    except FileNotFoundError:
        return False


def checkpoint_wal(connection: Connection) -> None:
    """Copy what was committed from the write-ahead log into the file, and make nobody wait.

    Otherwise whoever commits when the log has grown long does it, on the one connection that
    writes. (SQLite documentation, "PRAGMA wal_checkpoint": PASSIVE.)

    Args:
        connection: has read nothing yet in its transaction; it need not be able to write.
    """
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def _demand(engine: Engine, pragmas: dict[str, str], *, begin: str) -> None:
    """Set up every connection of the engine, and refuse one that does not comply."""

    def set_up(connection: driver.Connection, _record: object) -> None:
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


def _set_pragmas(connection: driver.Connection, pragmas: dict[str, str]) -> None:
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

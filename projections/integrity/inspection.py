"""Inspect a database without creating, migrating or changing it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import func, select, text

from domain.errors import LedgerError
from projections.integrity.findings import Finding
from projections.integrity.index_check import problems_of_file
from projections.integrity.schema_check import schema_findings
from projections.rebuild.status import ProjectionStatus, projection_status
from projections.store.database import Database
from projections.store.postgresql_tables import privileges_missing
from projections.store.schema import HEAD, current_revision, events
from projections.views.registry import WRITTEN

_HEADER_LENGTH = 20
_MAGIC = b"SQLite format 3\x00"
_WAL = b"\x02\x02"

_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
_ON_ANY_COLUMN = "coalesce(has_any_column_privilege(to_regclass('{}'), 'UPDATE'), false)"
_ON_TABLE = "coalesce(has_table_privilege(to_regclass('{}'), 'DELETE, TRUNCATE'), false)"
_MAY_CHANGE = " OR ".join(
    each.format(name) for name in ("events", "entries") for each in (_ON_ANY_COLUMN, _ON_TABLE)
)
_SETTINGS = ", ".join(f"current_setting('{name}')" for name in _DURABLE)
_SERVER = text(
    "SELECT current_setting('server_version'), current_user,"  # noqa: S608 - nothing from outside
    f" (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), ({_MAY_CHANGE}), {_SETTINGS}"
)

FileKind = Literal["absent", "empty", "foreign", "rollback journal", "wal"]


@dataclass(frozen=True, slots=True)
class Contents:
    """What the tables of a ledger contain.

    Args:
        revision: revision of the durable tables; ``None`` if there are none.
        events: number of events; 0 if they were not counted.
        projections: status of each projection; empty if the tables have another revision.
        schema: differences from the program's table definitions.
    """

    revision: str | None
    events: int = 0
    projections: tuple[ProjectionStatus, ...] = ()
    schema: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class FileInspection:
    """Properties of an SQLite file.

    Args:
        synchronous: value of the pragma; 2 is FULL.
        problems: findings of SQLite's own check of the file.
    """

    synchronous: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerInspection:
    """Properties of a PostgreSQL server and of the connection to it.

    Args:
        version: version of the server.
        role: role of the connection.
        is_encrypted: whether the connection uses TLS.
        not_durable: settings with which a crash may lose a commit.
        may_change_history: whether the role may change or delete recorded events and entries.
        has_ledger: whether the tables of a ledger exist.
        not_granted: privileges that a server needs and the role lacks.
    """

    version: str
    role: str
    is_encrypted: bool
    not_durable: tuple[str, ...]
    may_change_history: bool
    has_ledger: bool
    not_granted: tuple[str, ...]


def kind_of_file(path: Path) -> FileKind:
    """Return the kind of a database file from its header (SQLite file format, section 1.3).

    Opening a file with SQLite may change it; reading 20 bytes does not.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_LENGTH)
    except FileNotFoundError:
        return "absent"
    if not header:
        return "empty"
    if not header.startswith(_MAGIC):
        return "foreign"
    return "wal" if header[18:20] == _WAL else "rollback journal"


def inspect_file(database: Database) -> FileInspection:
    """Inspect the file of an open SQLite database.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    with database.read() as connection:
        return FileInspection(
            synchronous=connection.scalar(text("PRAGMA synchronous")) or 0,
            problems=tuple(problems_of_file(connection)),
        )


def inspect_server(database: Database) -> ServerInspection:
    """Inspect the server of an open database.

    Raises:
        LedgerUnavailable: the server did not answer.
    """
    with database.read() as connection:
        version, role, is_encrypted, may_change, *settings = connection.execute(_SERVER).one()
        has_ledger = current_revision(connection) is not None
        not_granted = privileges_missing(connection, WRITTEN)
    return ServerInspection(
        version=version,
        role=role,
        is_encrypted=bool(is_encrypted),
        not_durable=tuple(
            f"{name} = off"
            for name, value in zip(_DURABLE, settings, strict=True)
            if value == "off"
        ),
        may_change_history=bool(may_change),
        has_ledger=has_ledger,
        not_granted=tuple(not_granted),
    )


def contents_of(database: Database) -> Contents:
    """Inspect the tables of an open database whose file has no problems.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    with database.read() as connection:
        revision = current_revision(connection)
        # The tables of another revision have other columns, so nothing is read from them.
        if revision != HEAD:
            return Contents(revision)
    schema = tuple(schema_findings(database))
    try:
        with database.read() as connection:
            count = connection.scalar(select(func.count()).select_from(events)) or 0
        projections = tuple(projection_status(database))
    except LedgerError:
        if not schema:
            raise
        return Contents(revision, schema=schema)
    return Contents(revision, count, projections, schema)

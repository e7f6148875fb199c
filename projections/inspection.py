"""Looking at a database without making, upgrading or changing it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import func, select, text

from projections.database import Database
from projections.schema import HEAD, current_revision, events
from projections.status import ProjectionStatus, projection_status

_HEADER_LENGTH = 20
_MAGIC = b"SQLite format 3\x00"
_WAL = b"\x02\x02"

FileKind = Literal["absent", "empty", "foreign", "rollback journal", "wal"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a ledger's database.

    Args:
        revision: the revision of its durable tables; ``None`` if it has none.
        synchronous: how far the database goes to keep a commit; 2 is FULL.
        problems: what SQLite's own check of the file found; none if it is sound.
        events: how many events there are; 0 if they were not counted.
        projections: how far each has come; none if they were not looked at, because the file is
            damaged or its tables are of another revision.
    """

    revision: str | None
    synchronous: int
    problems: tuple[str, ...]
    events: int = 0
    projections: tuple[ProjectionStatus, ...] = ()


def kind_of_file(path: Path) -> FileKind:
    """Tell what a database file is, by its header alone (SQLite file format, section 1.3).

    Opening a file with SQLite may change it; reading 20 bytes does not.

    Raises:
        OSError: it cannot be read.
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


def inspect_database(database: Database) -> Inspection:
    """Look at a database that is open.

    Raises:
        LedgerUnavailable: it cannot be asked.
    """
    with database.read() as connection:
        found = Inspection(
            revision=current_revision(connection),
            synchronous=connection.scalar(text("PRAGMA synchronous")) or 0,
            problems=tuple(
                line
                for lines in connection.scalars(text("PRAGMA quick_check"))
                for line in lines.splitlines()
                if line != "ok"
            ),
        )
        # In a damaged file, and in tables of another shape, there is nothing reliable to count.
        if found.problems or found.revision != HEAD:
            return found
        count = connection.scalar(select(func.count()).select_from(events)) or 0
    return Inspection(
        revision=found.revision,
        synchronous=found.synchronous,
        problems=found.problems,
        events=count,
        projections=tuple(projection_status(database)),
    )

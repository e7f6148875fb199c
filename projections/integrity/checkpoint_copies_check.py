"""Comparing the checkpoints in the database with those in the file outside it.

A note is written into the file first, then into the database, so that the file may have one more
at its end. Where there is one machine, each has all notes that the other has. Where a ledger is on
a server, each machine has a file of its own: it begins when the machine does, and of what others
have signed it takes over only the last. So a note that only the database has says nothing there,
and one that only the file has says that a row is gone.
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import select

from projections.integrity.findings import Finding
from projections.store.database import Database
from projections.store.schema import checkpoints

_FILE = (
    "find out who can write to the file and to the database, and restore the file from a backup;"
    " its notes are in the database as well"
)
_ROW = "find out who can write to the database past the ledger; the note is in the file"


def noting_sizes(notes: Iterable[str], sizes: dict[str, list[int]]) -> Iterator[str]:
    """Yield notes, and add the size that each says to those of its origin."""
    for note in notes:
        origin, _, rest = note.partition("\n")
        size = rest.partition("\n")[0]
        if size.isdecimal():
            sizes.setdefault(origin, []).append(int(size))
        yield note


def compare_places(database: Database, origin: str, outside: list[int]) -> Iterator[Finding]:
    """Yield what is missing in the file of the checkpoints, or in the database.

    Args:
        origin: of the log that is signed for now; a fork begins a new file.
        outside: the sizes of the notes in the file, in their order.

    Raises:
        LedgerUnavailable: the database cannot be asked.
    """
    with database.read() as connection:
        inside = set(
            connection.scalars(select(checkpoints.c.size).where(checkpoints.c.origin == origin))
        )
    name = "the file of the checkpoints"
    if outside != sorted(set(outside)):
        yield Finding("checkpoint", name, "its notes are not in their order", _FILE)
    if database.is_a_file:
        missing = sorted(size for size in inside - set(outside) if isinstance(size, int))
        if inside and not outside:
            yield Finding("checkpoint", name, "it is missing or has no note of this log", _FILE)
        elif missing:
            wrong = f"{len(missing)} notes are missing in it, the first of {missing[0]} entries"
            yield Finding("checkpoint", name, wrong, _FILE)
    for size in sorted(set(outside[:-1]) - inside):
        wrong = "it is in the file outside and not in the database"
        yield Finding("checkpoint", f"the checkpoint at {size} entries", wrong, _ROW)

"""Compare the checkpoints in the database with those in the file outside it.

A note is written to the file first and then to the database, so the file may have one more at its
end. With a single machine, each place has all notes of the other. With a database server, each
machine has its own file, which begins with the machine's first start and gets only the last
checkpoint of other machines. So a note that only the database has is no finding there; a note that
only the file has means that a row was deleted.
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import select

from projections.integrity.findings import Finding
from projections.store.database import Database
from projections.store.schema import checkpoints

_FILE = (
    "find out who can write to the file and to the database, and restore the file from a backup;"
    " the database has its notes too"
)
_ROW = "find out who else can write to the database; the checkpoint file has the note"


def collecting_sizes(notes: Iterable[str], sizes: dict[str, list[int]]) -> Iterator[str]:
    """Yield the notes, and collect the size that each states by its origin."""
    for note in notes:
        origin, _, rest = note.partition("\n")
        size = rest.partition("\n")[0]
        if size.isdecimal():
            sizes.setdefault(origin, []).append(int(size))
        yield note


def compare_copies(database: Database, origin: str, outside: list[int]) -> Iterator[Finding]:
    """Yield a finding for each checkpoint that is missing in the file or in the database.

    Args:
        origin: name of the current log; a fork begins a new file.
        outside: sizes of the notes in the file, in file order.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    with database.read() as connection:
        inside = set(
            connection.scalars(select(checkpoints.c.size).where(checkpoints.c.origin == origin))
        )
    name = "the checkpoint file"
    if outside != sorted(set(outside)):
        yield Finding("checkpoint", name, "its notes are not in order", _FILE)
    if database.is_a_file:
        missing = sorted(size for size in inside - set(outside) if isinstance(size, int))
        if inside and not outside:
            yield Finding("checkpoint", name, "it is missing, or it has no note of this log", _FILE)
        elif missing:
            wrong = f"{len(missing)} notes are missing, the first at {missing[0]} entries"
            yield Finding("checkpoint", name, wrong, _FILE)
    for size in sorted(set(outside[:-1]) - inside):
        wrong = "it is in the checkpoint file, but not in the database"
        yield Finding("checkpoint", f"the checkpoint at {size} entries", wrong, _ROW)

"""The signed checkpoints in the database: to be asked for at once, and never the only copy."""

from datetime import datetime

from sqlalchemy import Connection, select, text

from domain.errors import ProjectionInconsistent
from domain.times import to_text
from projections.store.schema import checkpoints
from projections.tlog.checkpoint import Checkpoint

_KEEP = text(
    f"INSERT INTO {checkpoints.name} (origin, size, note, signed_at)"  # noqa: S608
    " VALUES (:origin, :size, :note, :signed_at) ON CONFLICT DO NOTHING"
)


def latest_note(connection: Connection, origin: str | None = None) -> str | None:
    """Return the note of the last checkpoint; ``None`` if there is none yet.

    Args:
        origin: of the log whose checkpoint it is: the one of the largest size. Without it, the one
            that is said to have been signed last, which is for people to read and decides nothing.
    """
    query = select(checkpoints.c.note)
    if origin is None:
        query = query.order_by(checkpoints.c.signed_at.desc(), checkpoints.c.size.desc())
    else:
        query = query.where(checkpoints.c.origin == origin).order_by(checkpoints.c.size.desc())
    note: str | None = connection.scalar(query.limit(1))
    return note


def shown_note(connection: Connection, origin: str) -> str | None:
    """Return the note of a log's last checkpoint, to be shown; ``None`` if there is none yet.

    Raises:
        ProjectionInconsistent: what is stored is not text.
    """
    note: object = latest_note(connection, origin)
    if note is not None and not isinstance(note, str):
        message = "a row of checkpoints cannot be read; run: keyledger audit verify"
        raise ProjectionInconsistent(message)
    return note


def notes(connection: Connection, origin: str) -> list[str]:
    """Return the notes of a log's checkpoints, the smallest first."""
    return list(
        connection.scalars(
            select(checkpoints.c.note)
            .where(checkpoints.c.origin == origin)
            .order_by(checkpoints.c.size)
        )
    )


def last_signed(connection: Connection, origin: str) -> tuple[int, str] | None:
    """Return the size of a log's last checkpoint and when it was signed; ``None`` without one."""
    row = connection.execute(
        select(checkpoints.c.size, checkpoints.c.signed_at)
        .where(checkpoints.c.origin == origin)
        .order_by(checkpoints.c.size.desc())
        .limit(1)
    ).first()
    return None if row is None else (row.size, row.signed_at)


def note_of(connection: Connection, origin: str, size: int) -> str:
    """Return the note of a log's checkpoint that is known to be there."""
    note: str = connection.execute(
        select(checkpoints.c.note).where(checkpoints.c.origin == origin, checkpoints.c.size == size)
    ).scalar_one()
    return note


def keep_note(connection: Connection, checkpoint: Checkpoint, note: str, at: datetime) -> None:
    """Write a signed checkpoint down, unless it is there already."""
    connection.execute(
        _KEEP,
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "note": note,
            "signed_at": to_text(at),
        },
    )

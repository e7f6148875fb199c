"""The signed checkpoints in the database: quick to query, and never the only copy."""

from datetime import datetime

from sqlalchemy import Connection, select, text

from domain.errors import ProjectionInconsistent
from domain.times import to_text
from projections.store.schema import checkpoints
from projections.tlog.checkpoint import Checkpoint

_STORE = text(
    f"INSERT INTO {checkpoints.name} (origin, size, note, signed_at)"  # noqa: S608
    " VALUES (:origin, :size, :note, :signed_at) ON CONFLICT DO NOTHING"
)


def latest_note(connection: Connection, origin: str | None = None) -> str | None:
    """Return the note of the last checkpoint; ``None`` if there is none.

    Args:
        origin: name of the log; its checkpoint with the largest size is returned. Without it, the
            checkpoint with the latest time is returned, which is only for display.
    """
    query = select(checkpoints.c.note)
    if origin is None:
        query = query.order_by(checkpoints.c.signed_at.desc(), checkpoints.c.size.desc())
    else:
        query = query.where(checkpoints.c.origin == origin).order_by(checkpoints.c.size.desc())
    note: str | None = connection.scalar(query.limit(1))
    return note


def shown_note(connection: Connection, origin: str) -> str | None:
    """Return the note of a log's last checkpoint for display; ``None`` if there is none.

    Raises:
        ProjectionInconsistent: the stored value is not text.
    """
    note: object = latest_note(connection, origin)
    if note is not None and not isinstance(note, str):
        message = "a row of the table checkpoints cannot be read: run keyledger audit verify"
        raise ProjectionInconsistent(message)
    return note


def notes(connection: Connection, origin: str) -> list[str]:
    """Return the notes of a log's checkpoints, smallest first."""
    return list(
        connection.scalars(
            select(checkpoints.c.note)
            .where(checkpoints.c.origin == origin)
            .order_by(checkpoints.c.size)
        )
    )


def last_signed(connection: Connection, origin: str) -> tuple[int, str] | None:
    """Return size and time of a log's last checkpoint; ``None`` if there is none."""
    row = connection.execute(
        select(checkpoints.c.size, checkpoints.c.signed_at)
        .where(checkpoints.c.origin == origin)
        .order_by(checkpoints.c.size.desc())
        .limit(1)
    ).first()
    return None if row is None else (row.size, row.signed_at)


def note_of(connection: Connection, origin: str, size: int) -> str:
    """Return the note of a log's checkpoint of this size, which must exist."""
    note: str = connection.execute(
        select(checkpoints.c.note).where(checkpoints.c.origin == origin, checkpoints.c.size == size)
    ).scalar_one()
    return note


def store_note(connection: Connection, checkpoint: Checkpoint, note: str, at: datetime) -> None:
    """Store a signed checkpoint, unless it is stored already."""
    connection.execute(
        _STORE,
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "note": note,
            "signed_at": to_text(at),
        },
    )

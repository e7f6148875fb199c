"""Where a log is not the one that was signed, for people to look there."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from domain.errors import ProjectionInconsistent
from projections.audit_log.checkpoint_file import notes_in
from projections.tlog.checkpoint import Checkpoint
from projections.tlog.merkle import root
from projections.tlog.notes import text_of
from projections.views.entries import reader


def where_it_differs(connection: Connection, path: Path) -> str:
    """Say between which checkpoints of a file the log is another one.

    That there is a difference was proved by a signature; here none is asked for.
    """
    signed = list(_checkpoints_in(path))

    def differs(checkpoint: Checkpoint) -> bool:
        return root_at(connection, checkpoint.size) != checkpoint.root

    # A log that is another one at some size is another one at all later sizes.
    first = bisect_left(signed, True, key=differs)  # noqa: FBT003 - what to look for
    wrong = "the log is not the one that was signed"
    if first == len(signed):
        return wrong
    begin = signed[first - 1].size if first else 0
    return f"{wrong}: one of the entries {begin} to {signed[first].size - 1} is another"


def root_at(connection: Connection, size: int) -> bytes | None:
    """Return the root of the log's first entries; ``None`` if a node of the tree is missing."""
    try:
        return root(size, reader(connection))
    except ProjectionInconsistent:
        # Whatever the log is, it is not what was signed.
        return None


def _checkpoints_in(path: Path) -> Iterator[Checkpoint]:
    """Yield what the notes in a file say, whoever signed it, as far as it is one of notes."""
    with suppress(ValueError):
        for note in notes_in(path):
            with suppress(ValueError):
                yield Checkpoint.from_text(text_of(note))
